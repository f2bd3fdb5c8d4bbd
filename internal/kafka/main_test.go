package kafka

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(publisherVariable) != "" {
		os.Exit(publishForBenchmark())
	}
	goleak.VerifyTestMain(m)
}
