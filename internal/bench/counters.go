package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// counters are a server's Prometheus counters at one moment, by name and labels.
type counters map[string]float64

// readCounters reads the text format of Prometheus; only what is declared a counter of streamgw's is taken.
func readCounters(text io.Reader) (counters, error) {
	found := counters{}
	counting := ""
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if declared, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(declared, " ")
			if counting = ""; kind == "counter" && strings.HasPrefix(name, "streamgw_") {
				counting = name
			}
			continue
		}
		if counting == "" || !strings.HasPrefix(line, counting) {
			continue
		}
		if end := strings.LastIndexByte(line, ' '); end > 0 {
			if v, err := strconv.ParseFloat(line[end+1:], 64); err == nil {
				found[line[:end]] = v
			}
		}
	}
	return found, lines.Err()
}

// countersAt returns the server's counters now; nil where url is empty.
func countersAt(ctx context.Context, url string) (counters, error) {
	if url == "" {
		return nil, nil
	}
	found, err := fetchCounters(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("--metrics-url: %w", err)
	}
	return found, nil
}

func fetchCounters(ctx context.Context, url string) (counters, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return readCounters(resp.Body)
}

// grown returns by how much counters have grown from c to now.
func (c counters) grown(now counters) map[string]float64 {
	by := map[string]float64{}
	for name, v := range now {
		if d := v - c[name]; d != 0 {
			by[name] = d
		}
	}
	return by
}
