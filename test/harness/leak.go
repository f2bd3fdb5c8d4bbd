package harness

import (
	"fmt"
	"regexp"
	"strings"
)

// leastLeak is how many letters of a secret in a row are one too many.
const leastLeak = 20

// secretLike matches what could be a secret, or a part of one.
var secretLike = regexp.MustCompile(fmt.Sprintf(`[A-Za-z0-9_-]{%d,}`, leastLeak))

// Leaks returns the secrets that a text holds, or the beginning or the end of one, or of one of its parts between dots,
// each shortened. The header of a token, which tells its algorithm, is no secret.
func Leaks(text []byte, secrets []string) (found []string) {
	known := map[string]bool{}
	for _, secret := range secrets {
		parts := strings.Split(secret, ".")
		if len(parts) == 3 {
			parts = parts[1:]
		}
		for _, part := range parts {
			if len(part) >= leastLeak {
				known[part[:leastLeak]], known[part[len(part)-leastLeak:]] = true, true
			}
		}
	}
	for _, run := range secretLike.FindAll(text, -1) {
		for i := range len(run) - leastLeak + 1 {
			if window := string(run[i : i+leastLeak]); known[window] {
				found = append(found, window+"…")
				break
			}
		}
	}
	return found
}
