package buildinfo

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const revision = "0123456789abcdef0123456789abcdef01234567"

func recorded(version string) *debug.BuildInfo {
	return &debug.BuildInfo{
		Main: debug.Module{Version: version},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: revision},
			{Key: "vcs.time", Value: "2026-03-01T12:00:00Z"},
			{Key: "vcs.modified", Value: "true"},
		},
	}
}

func TestDescribe(t *testing.T) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	tests := map[string]struct {
		recorded *debug.BuildInfo
		linked   Info
		want     Info
		line     string
	}{
		"from the toolchain": {
			recorded: recorded("v1.2.3"),
			want:     Info{Version: "v1.2.3", Commit: revision, Date: "2026-03-01T12:00:00Z", Modified: true},
			line:     "v1.2.3 (commit 0123456789ab modified, 2026-03-01T12:00:00Z, ",
		},
		"without a version": {
			recorded: recorded("(devel)"),
			want:     Info{Version: "devel", Commit: revision, Date: "2026-03-01T12:00:00Z", Modified: true},
			line:     "devel (commit 0123456789ab modified, 2026-03-01T12:00:00Z, ",
		},
		"nothing known": {
			recorded: &debug.BuildInfo{},
			want:     Info{Version: "devel"},
			line:     "devel (",
		},
		"the linker precedes": {
			recorded: recorded("v1.2.3"),
			linked:   Info{Version: "v2.0.0", Commit: "abc", Date: "2026-04-01T00:00:00Z"},
			want:     Info{Version: "v2.0.0", Commit: "abc", Date: "2026-04-01T00:00:00Z"},
			line:     "v2.0.0 (commit abc, 2026-04-01T00:00:00Z, ",
		},
		"two commits are not mixed": {
			recorded: recorded("v1.2.3"),
			linked:   Info{Commit: "abc"},
			want:     Info{Version: "v1.2.3", Commit: "abc"},
			line:     "v1.2.3 (commit abc, ",
		},
		"version alone from the linker": {
			recorded: recorded("(devel)"),
			linked:   Info{Version: "v2.0.0"},
			want:     Info{Version: "v2.0.0", Commit: revision, Date: "2026-03-01T12:00:00Z", Modified: true},
			line:     "v2.0.0 (commit 0123456789ab modified, 2026-03-01T12:00:00Z, ",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.want.GoVersion, test.want.Platform, test.want.FIPS140 = runtime.Version(), platform, FIPSOff
			got := describe(test.recorded, test.linked)
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.line+runtime.Version()+", "+platform+")", got.String())
		})
	}
}

func TestFIPSModeInWords(t *testing.T) {
	assert.Empty(t, Info{}.FIPSMode())
	assert.Empty(t, Info{FIPS140: FIPSOff}.FIPSMode())
	on := Info{Version: "v1.2.3", GoVersion: "go1.26.8", Platform: "linux/amd64", FIPS140: FIPSOnly, FIPS140Module: "v1.0.0"}
	assert.Equal(t, "v1.2.3 (go1.26.8, linux/amd64, FIPS 140-3 mode only, module v1.0.0)", on.String())
}

// The names in the linker flags are not checked by any compiler: a renamed
// variable would silently ship releases without a version.
func TestLinkerFlagsAsDocumented(t *testing.T) {
	const prefix = "-X github.com/certctl/certctl/shared/buildinfo."
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(source, []byte(`package main

import (
	"encoding/json"
	"os"

	"github.com/certctl/certctl/shared/buildinfo"
)

func main() {
	err := json.NewEncoder(os.Stdout).Encode([]any{
		buildinfo.Get(), buildinfo.Version(), buildinfo.Commit(), buildinfo.Date(),
	})
	if err != nil {
		panic(err)
	}
}
`), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "run", "-ldflags",
		prefix+"version=v9.8.7 "+prefix+"commit="+revision+" "+prefix+"date=2026-03-01T12:00:00Z",
		source).Output()
	require.NoError(t, err)

	var got [4]json.RawMessage
	require.NoError(t, json.Unmarshal(out, &got))
	assert.JSONEq(t, `{
		"version": "v9.8.7", "commit": "`+revision+`", "date": "2026-03-01T12:00:00Z",
		"go_version": "`+runtime.Version()+`", "platform": "`+runtime.GOOS+"/"+runtime.GOARCH+`",
		"fips140": "off"
	}`, string(got[0]))
	assert.JSONEq(t, `"v9.8.7"`, string(got[1]))
	assert.JSONEq(t, `"`+revision+`"`, string(got[2]))
	assert.JSONEq(t, `"2026-03-01T12:00:00Z"`, string(got[3]))
}
