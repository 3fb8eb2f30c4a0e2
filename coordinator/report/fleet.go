package report

import (
	"cmp"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
)

// Bounds of the lists in a [Fleet]: those that most hosts, or certificates, have. The
// others are counted under [Rest].
const (
	MaxVersions = 64
	MaxIssuers  = 64
	Rest        = fleet.OtherName
)

// Fleet is hosts in sums.
type Fleet struct {
	Hosts     int // active
	Connected int
	CutOff    int
	// CutOffSince is the last sign of life of the host that is cut off for longest.
	CutOffSince time.Time
	Risks       map[Risk]int

	// SafeUntil is the offline horizon of the first host; zero if none serves anything,
	// or something is not safe now, which makes any later moment untrue.
	SafeUntil time.Time
	// NotSafe counts certificates that were not safe at the last report, of NotSafeHosts.
	NotSafe, NotSafeHosts int

	FactsDropped      uint64 // since the agents' stores were created
	FactsDroppedHosts int
	ClockWrong        int   // hosts
	WorstSkew         int64 // seconds
	Warned            int   // hosts
	Shared            int   // hosts whose identity another one uses too

	Certificates Certificates
	Week         time.Time // when the first week of Certificates.Expiring began
	Issuers      []Issued  // most certificates first
	Versions     []Version // most hosts first

	issuers  map[string]Issued
	versions map[string]int
}

// Version is how many hosts have an agent of a version.
type Version struct {
	Version string
	Hosts   int
}

func newFleet(now time.Time) *Fleet {
	return &Fleet{Risks: map[Risk]int{}, Week: WeekOf(now), issuers: map[string]Issued{}, versions: map[string]int{}}
}

func (f *Fleet) add(h *Host) {
	f.Hosts++
	f.Risks[h.Risk]++
	if h.CutOff {
		f.CutOff++
		f.CutOffSince = earlier(f.CutOffSince, h.Seen)
	} else {
		f.Connected++
	}
	certificates := h.Known()
	f.Certificates.Add(&certificates)
	host := &h.Agent.Host
	if host.SafeUntil != nil {
		f.SafeUntil = earlier(f.SafeUntil, *host.SafeUntil)
	}
	if host.NotSafe > 0 {
		f.NotSafeHosts++
		f.NotSafe += host.NotSafe
	}
	if host.EventsDropped > 0 {
		f.FactsDroppedHosts++
		f.FactsDropped += host.EventsDropped
	}
	if h.ClockWrong() {
		f.ClockWrong++
	}
	if skew := host.ClockSkewSeconds; magnitude(skew) > magnitude(f.WorstSkew) {
		f.WorstSkew = skew
	}
	if len(host.Warnings) > 0 {
		f.Warned++
	}
	if h.Shared {
		f.Shared++
	}
	for _, issued := range h.Issuers {
		sum := f.issuers[issued.Issuer]
		sum.Total += issued.Total
		sum.Troubled += issued.Troubled
		f.issuers[issued.Issuer] = sum
	}
	f.versions[host.Version]++
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n) //nolint:gosec // two's complement: right for the least one too
	}
	return uint64(n)
}

// finish makes the lists out of what was added.
func (f *Fleet) finish(now time.Time) {
	if f.NotSafe > 0 && now.Before(f.SafeUntil) {
		f.SafeUntil = time.Time{}
	}
	for name, sum := range f.issuers {
		sum.Issuer = name
		f.Issuers = append(f.Issuers, sum)
	}
	slices.SortFunc(f.Issuers, func(a, b Issued) int {
		return cmp.Or(-cmp.Compare(a.Total, b.Total), cmp.Compare(a.Issuer, b.Issuer))
	})
	f.Issuers = limited(f.Issuers, MaxIssuers, func(rest *Issued, one Issued) {
		rest.Issuer = Rest
		rest.Total += one.Total
		rest.Troubled += one.Troubled
	})
	for version, hosts := range f.versions {
		f.Versions = append(f.Versions, Version{version, hosts})
	}
	slices.SortFunc(f.Versions, func(a, b Version) int {
		return cmp.Or(-cmp.Compare(a.Hosts, b.Hosts), cmp.Compare(a.Version, b.Version))
	})
	f.Versions = limited(f.Versions, MaxVersions, func(rest *Version, one Version) {
		rest.Version = Rest
		rest.Hosts += one.Hosts
	})
	f.issuers, f.versions = nil, nil
}

// limited keeps as many of a list as there is room for; the last one stands for the rest.
func limited[T any](list []T, most int, add func(rest *T, one T)) []T {
	if len(list) <= most {
		return list
	}
	var rest T
	for _, one := range list[most-1:] {
		add(&rest, one)
	}
	return append(list[:most-1:most-1], rest)
}
