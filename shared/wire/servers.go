package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Limits of a list of servers.
const (
	MaxServers   = 16
	MaxServerLen = 512
)

// ParseServer checks and normalises the URL of a coordinator: https, a host, and
// nothing after it.
func ParseServer(text string) (string, error) {
	shown := text
	if len(shown) > MaxServerLen {
		shown = strings.ToValidUTF8(shown[:64], "") + "…"
	}
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("server %q: %s; give it as https://host:port", shown, why)
	}
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case text == "":
		return bad("it is empty")
	case len(text) > MaxServerLen:
		return bad(fmt.Sprintf("it has more than %d octets", MaxServerLen))
	case err != nil || u.Scheme == "" || u.Opaque != "":
		return bad("it is not a URL")
	case u.Scheme != "https":
		return bad("the scheme is " + u.Scheme + ", and only https will do")
	case u.Hostname() == "":
		return bad("it has no host")
	case u.User != nil:
		return bad("a user or password has no place in it")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return bad("it has something after the host")
	}
	host := strings.ToLower(u.Hostname())
	if u.Port() != "" {
		return "https://" + net.JoinHostPort(host, u.Port()), nil
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return "https://" + host, nil
}

// CleanServers is what is kept of a list of servers: those that are URLs of a
// coordinator, each once, in the order of the alphabet, and no more than
// MaxServers. Both sides clean a list before they compare it.
func CleanServers(list []string) []string {
	var clean []string
	for _, text := range list {
		if server, err := ParseServer(text); err == nil {
			clean = append(clean, server)
		}
	}
	slices.Sort(clean)
	clean = slices.Compact(clean)
	return slices.Clip(clean[:min(len(clean), MaxServers)])
}

// ServersDigest stands for a clean list, also for an empty one.
func ServersDigest(clean []string) string {
	sum := sha256.Sum256([]byte(strings.Join(clean, "\n")))
	return hex.EncodeToString(sum[:])
}

func validServersDigest(text string) bool {
	if text == "" {
		return true
	}
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == sha256.Size
}
