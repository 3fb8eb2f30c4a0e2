// Package buildinfo says which build of certctl is running.
//
// The Go toolchain records the module version and the commit by itself. A
// release build, which may be made from an archive without a repository,
// overrides them:
//
//	go build -ldflags "\
//	  -X github.com/certctl/certctl/shared/buildinfo.version=v1.2.3 \
//	  -X github.com/certctl/certctl/shared/buildinfo.commit=$(git rev-parse HEAD) \
//	  -X github.com/certctl/certctl/shared/buildinfo.date=2026-03-01T12:00:00Z"
package buildinfo

import (
	"crypto/fips140"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// Set by the linker; see the package comment.
var version, commit, date string

// Info describes a build. A field that is not known is empty, except Version.
type Info struct {
	// Version is the module version such as v1.2.3, or "devel" for a build that
	// has none.
	Version string `json:"version"`
	// Commit is the full revision of the source.
	Commit string `json:"commit,omitempty"`
	// Date is the time of the commit, or the one that the release build gave,
	// in RFC 3339 form. It is not the time of compilation: that would make
	// every build different.
	Date string `json:"date,omitempty"`
	// Modified reports that the source differed from Commit.
	Modified bool `json:"modified,omitempty"`
	// GoVersion is the toolchain's version such as go1.26.8.
	GoVersion string `json:"go_version"`
	// Platform is the operating system and architecture that the build is for,
	// such as linux/amd64.
	Platform string `json:"platform"`
	// FIPS140 is the mode in which the program runs now: off, on, or only, in
	// which what is not approved fails. FIPS140Module is the version of the Go
	// Cryptographic Module that it uses; "" when it is off.
	FIPS140       string `json:"fips140"`
	FIPS140Module string `json:"fips140_module,omitempty"`
}

// Modes of Info.FIPS140.
const (
	FIPSOff  = "off"
	FIPSOn   = "on"
	FIPSOnly = "only"
)

// Get returns the description of the running build.
func Get() Info { return current() }

// Version returns [Info.Version] of the running build.
func Version() string { return current().Version }

// Commit returns [Info.Commit] of the running build.
func Commit() string { return current().Commit }

// Date returns [Info.Date] of the running build.
func Date() string { return current().Date }

// String returns one line for people. [Info] itself is the form for machines:
// it marshals to JSON.
func (i Info) String() string {
	var b strings.Builder
	b.WriteString(i.Version)
	b.WriteString(" (")
	if i.Commit != "" {
		fmt.Fprintf(&b, "commit %s", short(i.Commit))
		if i.Modified {
			b.WriteString(" modified")
		}
		b.WriteString(", ")
	}
	if i.Date != "" {
		fmt.Fprintf(&b, "%s, ", i.Date)
	}
	fmt.Fprintf(&b, "%s, %s", i.GoVersion, i.Platform)
	if mode := i.FIPSMode(); mode != "" {
		fmt.Fprintf(&b, ", %s", mode)
	}
	b.WriteByte(')')
	return b.String()
}

// FIPSMode says in words in which mode the program runs; "" for off.
func (i Info) FIPSMode() string {
	if i.FIPS140 == "" || i.FIPS140 == FIPSOff {
		return ""
	}
	return fmt.Sprintf("FIPS 140-3 mode %s, module %s", i.FIPS140, i.FIPS140Module)
}

var current = sync.OnceValue(func() Info {
	// Without build info, which a binary built without modules lacks, the
	// linker's values are all there is.
	recorded, ok := debug.ReadBuildInfo()
	if !ok {
		recorded = &debug.BuildInfo{}
	}
	return describe(recorded, Info{Version: version, Commit: commit, Date: date})
})

// describe takes from recorded what linked leaves open.
func describe(recorded *debug.BuildInfo, linked Info) Info {
	info := linked
	info.GoVersion = runtime.Version()
	info.Platform = runtime.GOOS + "/" + runtime.GOARCH
	info.FIPS140 = FIPSOff
	if fips140.Enabled() {
		info.FIPS140, info.FIPS140Module = FIPSOn, fips140.Version()
	}
	if fips140.Enforced() {
		info.FIPS140 = FIPSOnly
	}
	if info.Version == "" {
		info.Version = recorded.Main.Version
	}
	if info.Version == "" || info.Version == "(devel)" {
		info.Version = "devel"
	}
	// A commit from the linker describes another checkout than the one that
	// the toolchain looked at, so date and state are not mixed in from there.
	if linked.Commit != "" {
		return info
	}
	for _, setting := range recorded.Settings {
		switch setting.Key {
		case "vcs.revision":
			info.Commit = setting.Value
		case "vcs.time":
			if info.Date == "" {
				info.Date = setting.Value
			}
		case "vcs.modified":
			info.Modified = setting.Value == "true"
		}
	}
	return info
}

// short cuts a commit to the length that people read out to each other.
func short(commit string) string {
	return commit[:min(len(commit), 12)]
}
