//go:build !linux

package bench

import (
	"context"
	"io"
	"os/exec"
	"time"
)

func cpuOf(int) (time.Duration, error)      { return 0, ErrUnsupported }
func machineCPU() (time.Duration, error)    { return 0, ErrUnsupported }
func rssOf(int) (int64, error)              { return 0, ErrUnsupported }
func memoryOf(int) (m Memory, err error)    { return m, ErrUnsupported }
func WriteFloor(io.Reader, io.Writer) error { return ErrUnsupported }

func Live(context.Context, Config) (*Result, error) { return nil, ErrUnsupported }
func Floor(context.Context, Config, int, *exec.Cmd) (*Result, error) {
	return nil, ErrUnsupported
}

func Idle(context.Context, Config, time.Duration) (*Result, error) { return nil, ErrUnsupported }
func Comeback(context.Context, Config, Behind) (*Result, error)    { return nil, ErrUnsupported }
func Returning(context.Context, Config, int, int) (*Result, error) { return nil, ErrUnsupported }
