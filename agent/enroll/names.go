package enroll

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/certctl/certctl/shared/pki"
)

// Wanted gathers what Config.Names is to hold from the names of each
// certificate. An enrolment carries no more than pki.MaxNames of them; of a host
// that has more it carries one of each domain before a second one of any, since
// a token that is meant for other hosts is for other domains.
func Wanted(certificates []pki.Names) pki.Names {
	var all pki.Names
	for _, names := range certificates {
		missing := all.Missing(names)
		all.DNS, all.IPs = append(all.DNS, missing.DNS...), append(all.IPs, missing.IPs...)
	}
	seen := map[string]int{}
	turn := make(map[string]int, len(all.DNS))
	for _, name := range all.DNS {
		_, domain, _ := strings.Cut(name, ".")
		turn[name] = seen[domain]
		seen[domain]++
	}
	slices.SortStableFunc(all.DNS, func(a, b string) int { return turn[a] - turn[b] })

	all.DNS = all.DNS[:min(len(all.DNS), pki.MaxNames)]
	all.IPs = all.IPs[:min(len(all.IPs), pki.MaxNames-len(all.DNS))]
	slices.Sort(all.DNS)
	slices.SortFunc(all.IPs, netip.Addr.Compare)
	return all
}
