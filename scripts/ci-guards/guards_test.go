//go:build unix

package ciguards

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/rules"
)

// tree is a fixture: file contents by path relative to its root.
type tree map[string]string

var clean = tree{
	"README.md":               "# A product\n\nRun it from $HOME/bin or /var/lib/product. It can issue 100 certificates.\n",
	"agent/loop.go":           "package agent\n\nimport \"time\"\n\n// time.Sleep would be wrong here.\nvar wait = time.After\n",
	"agent/loop_test.go":      "package agent\n\nimport \"time\"\n\nfunc pause() { time.Sleep(1) }\n",
	"agent/other.go":          "package agent\n\ntype clock struct{}\n\nfunc (clock) Sleep() {}\n\nfunc f(time clock) { time.Sleep() }\n",
	"agent/bound.go":          "package agent\n\nimport \"time\"\n\nfunc bound(c chan int) {\n\tx := time.NewTimer(1)\n\tdefer x.Stop()\n\tfor {\n\t\tselect {\n\t\tcase <-c:\n\t\tcase <-x.C:\n\t\t\ttime.AfterFunc(1, later)\n\t\t\treturn\n\t\t}\n\t}\n}\n\nfunc later() {}\n",
	"agent/step.go":           "package agent\n\nimport \"os\"\n\nfunc f(h hook) { h.Around(a, b, func() error { return os.Remove(b) }) }\n",
	"agent/step_test.go":      "package agent\n\nimport \"os\"\n\nfunc g() { os.Remove(\"x\") }\n",
	"coordinator/x.go":        "package coordinator\n\nimport \"os\"\n\nfunc g() { os.Remove(\"x\") }\n",
	"shared/durable/write.go": "package durable\n\nimport \"os\"\n\nfunc g(f *os.File) { f.Sync() }\n",
	"agent/hash.go":           "package agent\n\nfunc f(h interface{ Reset(int) }) {\n\tfor {\n\t\th.Reset(1)\n\t}\n}\n",
	"shared/backoff/wait.go":  "package backoff\n\nimport \"time\"\n\nfunc f() {\n\tfor {\n\t\t<-time.After(1)\n\t}\n}\n",
	"shared/jitter/ticker.go": "package jitter\n\nimport \"time\"\n\nvar t = time.NewTicker(1)\n",
	"shared/pki/key.go":       "package pki\n\nconst header = \"-----BEGIN PRIVATE KEY-----\"\n",
	"docs/a b=c.md":           "-----BEGIN CERTIFICATE-----\n" + strings.Repeat("QUJD", 16) + "\n-----END CERTIFICATE-----\n",
	"empty":                   "",
}

func (f tree) write(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range f {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return root
}

func with(name, content string) tree {
	f := tree{name: content}
	for name, content := range clean {
		if _, ok := f[name]; !ok {
			f[name] = content
		}
	}
	return f
}

// run runs a script of this directory on the tree at root and returns what it
// printed and its exit code.
func run(t *testing.T, script, root string) (output string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", script)
	cmd.Env = append(os.Environ(), "GUARD_ROOT="+root)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func initRepository(t *testing.T, root string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "init", "-q").CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func key(kind string) string {
	return "-----BEGIN " + kind + "PRIVATE KEY-----\n" + strings.Repeat("QUJD", 16) + "\n-----END " + kind + "PRIVATE KEY-----\n"
}

func TestGuards(t *testing.T) {
	type offender struct{ file, content, where string }
	goFile := func(body string) string { return "package agent\n\n" + body + "\n" }
	guards := map[string][]offender{
		"guard-no-bare-tickers.sh": {
			{"agent/sync/x.go", goFile("import \"time\"\n\nfunc f() { time.Sleep(1) }"), "agent/sync/x.go:5: time.Sleep"},
			{"agent/x.go", goFile("import \"time\"\n\nvar t = time.NewTicker(1)"), "agent/x.go:5: time.NewTicker"},
			{"agent/x.go", goFile("import \"time\"\n\nvar t = time.Tick"), "agent/x.go:5: time.Tick"},
			{"agent/x.go", goFile("import t \"time\"\n\nvar x = t.NewTicker(1)"), "agent/x.go:5: time.NewTicker"},
			{"agent/x.go", goFile("import (\n\t\"time\"\n\tt `time`\n)\n\nvar x, y = t.Tick(1), time.Now()"), "agent/x.go:8: time.Tick"},
			{"agent/x.go", goFile("import . \"time\"\n\nfunc f() { Sleep(1) }"), "agent/x.go:3: import . \"time\""},
			{"agent/x_windows.go", goFile("import \"time\"\n\nfunc f() { time.Sleep(1) }"), "agent/x_windows.go:5: "},
			{"shared/jitterbug/x.go", goFile("import \"time\"\n\nfunc f() { time.Sleep(1) }"), "shared/jitterbug/x.go:5: "},
			{"agent/x.go", goFile("import \"time\"\n\nfunc f() {\n\tfor {\n\t\t<-time.After(1)\n\t}\n}"), "agent/x.go:7: time.After in a loop"},
			{"agent/x.go", goFile("import t \"time\"\n\nfunc f(c chan int) {\n\tfor range c {\n\t\tselect {\n\t\tcase <-t.After(1):\n\t\t}\n\t}\n}"), "agent/x.go:8: time.After in a loop"},
			{"agent/x.go", goFile("import \"time\"\n\nfunc f() {\n\tfor {\n\t\tx := time.NewTimer(1)\n\t\t<-x.C\n\t}\n}"), "agent/x.go:7: time.NewTimer in a loop"},
			{"agent/x.go", goFile("import \"time\"\n\nfunc f() {\n\tx := time.NewTimer(1)\n\tfor {\n\t\t<-x.C\n\t\tx.Reset(1)\n\t}\n}"), "agent/x.go:9: Reset of a timer in a loop"},
			{"agent/x.go", goFile("import \"time\"\n\nfunc f() {\n\tx := time.NewTimer(1)\n\tfor ; ; x.Reset(1) {\n\t\t<-x.C\n\t}\n}"), "agent/x.go:7: Reset of a timer in a loop"},
			{"agent/x.go", goFile("import \"time\"\n\ntype a struct{ x *time.Timer }\n\nfunc (s a) f() {\n\tfor range 3 {\n\t\ts.x.Reset(1)\n\t}\n}"), "agent/x.go:9: Reset of a timer in a loop"},
			{"agent/x.go", goFile("import \"time\"\n\nfunc f() { time.AfterFunc(1, f) }"), "agent/x.go:5: time.AfterFunc that starts itself again"},
			{"agent/x.go", goFile("import \"time\"\n\nfunc f() {\n\tvar tick func()\n\ttick = func() {\n\t\ttime.AfterFunc(1, tick)\n\t}\n\ttick()\n}"), "agent/x.go:8: time.AfterFunc that starts itself again"},
			{"agent/x.go", goFile("import \"time\"\n\ntype a struct{}\n\nfunc (s a) arm() { time.AfterFunc(1, func() { s.tick() }) }\n\nfunc (s a) tick() { s.arm() }"), "agent/x.go:7: time.AfterFunc that starts itself again"},
			{"agent/x.go", goFile("import \"time\"\n\nfunc f() {\n\tvar x *time.Timer\n\tx = time.AfterFunc(1, func() { x.Reset(1) })\n}"), "agent/x.go:7: time.AfterFunc that starts itself again"},
			{"agent/x.go", "package agent\n\nfunc f() {", "agent/x.go:3:"}, // not parsed is not clean
		},
		"guard-no-bare-writes.sh": {
			{"agent/x.go", goFile("import \"os\"\n\nfunc f() { os.WriteFile(\"x\", nil, 0o600) }"), "agent/x.go:5: os.WriteFile in f is no part"},
			{"agent/x.go", goFile("import o \"os\"\n\nvar f = o.Rename"), "agent/x.go:5: os.Rename in the file itself"},
			{"agent/x.go", goFile("import \"os\"\n\nfunc f() { os.Remove(\"x\") }"), "agent/x.go:5: os.Remove"},
			{"agent/x.go", goFile("import \"os\"\n\nfunc f() { os.RemoveAll(\"x\") }"), "agent/x.go:5: os.RemoveAll"},
			{"agent/x.go", goFile("import \"os\"\n\nfunc f() { os.Create(\"x\") }"), "agent/x.go:5: os.Create"},
			{"agent/x_windows.go", goFile("import \"os\"\n\nfunc f() { os.OpenFile(\"x\", os.O_WRONLY, 0) }"), "agent/x_windows.go:5: os.OpenFile"},
			{"agent/x.go", goFile("import . \"os\"\n\nfunc f() { Remove(\"x\") }"), "agent/x.go:3: import . \"os\""},
			{"agent/x.go", goFile("import \"syscall\"\n\nfunc f() { syscall.Unlink(\"x\") }"), "agent/x.go:5: syscall.Unlink"},
			{"shared/x/x.go", goFile("import \"" + rules.Module + "/shared/durable\"\n\nfunc f() { durable.WriteFile(\"x\", nil, 0o600) }"), "shared/x/x.go:5: durable.WriteFile"},
			{"agent/x.go", goFile("import \"os\"\n\nfunc f(f *os.File) { f.Sync() }"), "agent/x.go:5: a Sync that durable.Sync"},
			{"agent/x.go", goFile("import \"os\"\n\nfunc f(h hook, f *os.File) { h.Around(a, b, func() error { return f.Sync() }) }"), "agent/x.go:5: a Sync that durable.Sync"},
			{"agent/x.go", goFile("import \"os\"\n\nfunc f(h hook, f *os.File) { h.Around(a, b, f.Sync) }"), "agent/x.go:5: a Sync that durable.Sync"},
			{"agent/x.go", goFile("import \"os\"\n\nfunc f(h hook, g func() error) { h.Around(a, b, g); os.Remove(\"x\") }"), "agent/x.go:5: os.Remove"},
			// What is allowed in one function is not in another, nor something else in that one.
			{"agent/store/room.go", "package store\n\nimport \"os\"\n\nfunc other() { os.OpenFile(\"x\", os.O_WRONLY, 0) }\n", "agent/store/room.go:5: os.OpenFile in other"},
			{"agent/store/room.go", "package store\n\nimport \"os\"\n\nfunc writeRoom() { os.Remove(\"x\") }\n", "agent/store/room.go:5: os.Remove in writeRoom"},
			{"agent/store/room.go", "package store\n", "agent/store/room.go:1: os.OpenFile in writeRoom is allowed, and is not there"},
			{"agent/x.go", "package agent\n\nfunc f() {", "agent/x.go:3:"}, // not parsed is not clean
		},
		"guard-no-secrets.sh": {
			{"a.pem", key(""), "a.pem:1: a private key"},
			{"testdata/a.pem", "# comment\n" + key("RSA "), "testdata/a.pem:2: a private key"},
			{"a.key", key("EC "), "a.key:1:"},
			{"id", key("OPENSSH "), "id:1:"},
			{"a=b.pem", key("ENCRYPTED "), "a=b.pem:1:"},
			{"-f.pem", key(""), "-f.pem:1:"},
			{"dos.pem", strings.ReplaceAll(key(""), "\n", "\r\n"), "dos.pem:1:"},
			{"old.pem", strings.Replace(key("RSA "), "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1), "old.pem:1:"},
			{"x.json", `{"key":"-----BEGIN PRIVATE KEY-----\n` + strings.Repeat("QUJD", 16) + `"}`, "x.json:1:"},
			{"x_test.go", "package x\n\nconst k = `" + key("") + "`\n", "x_test.go:3:"},
			{"both.pem", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n" + key(""), "both.pem:4:"},
		},
		"guard-words.sh": {
			{"x.md", "built in\n/wo" + "rk/main/bin\n", "x.md:2:"},
			{"x.go", "package x // \"/tmp/state\"\n", "x.go:1:"},
			{"x.md", "cd /home/alice/src\n", "x.md:1:"},
			{"x.md", "open /Users/alice\n", "x.md:1:"},
			{"x.md", `C:\Users\alice`, "x.md:1:"},
			{"x.go", "package x\n\n// TODO: finish\n", "x.go:3:"},
			{"x.go", "package x\n\n// FIXME\n", "x.go:3:"},
			{"x.md", "as described in issue 2\n", "x.md:1:"},
			{"x.md", "see Issue #17\n", "x.md:1:"},
			{"-r.md", "TODO\n", "-r.md:1:"},
		},
		"guard-package-names.sh": {
			{"x/x.go", "// A comment.\npackage util // why not\n", "x/x.go:2:"},
			{"x/x_test.go", "package helpers_test\n", "x/x_test.go:1:"},
			{"x/x.go", "package types\r\n", "x/x.go:1:"},
		},
	}
	for _, name := range rules.VagueNames {
		guards["guard-package-names.sh"] = append(guards["guard-package-names.sh"],
			offender{"x/x.go", "package " + name + "\n", "x/x.go:1:"})
	}
	scripts, err := filepath.Glob("guard-*.sh")
	require.NoError(t, err)
	// A guard runs these in a process of its own, which the test cache cannot see;
	// reading the directories makes the result depend on them.
	for _, dir := range []string{"tickers", "writes"} {
		_, err = os.ReadDir(dir)
		require.NoError(t, err)
	}
	require.Len(t, guards, len(scripts), "each guard needs an offender here")

	for guard, offenders := range guards {
		t.Run(guard, func(t *testing.T) {
			root := clean.write(t)
			output, code := run(t, guard, root)
			assert.Zero(t, code, output)
			assert.Equal(t, strings.TrimSuffix(guard, ".sh")+": ok\n", output)

			// The same in a repository, where the list of files comes from git.
			initRepository(t, root)
			output, code = run(t, guard, root)
			assert.Zero(t, code, output)

			for _, o := range offenders {
				root := with(o.file, o.content).write(t)
				output, code := run(t, guard, root)
				assert.NotZero(t, code, "%s passed with %q", guard, o.content)
				assert.Contains(t, output, o.where)
				initRepository(t, root)
				output, code = run(t, guard, root)
				assert.NotZero(t, code, "%s passed in a repository with %q", guard, o.content)
				assert.Contains(t, output, o.where)
			}
		})
	}
}

func TestIgnoredAndDeletedFilesAreNotChecked(t *testing.T) {
	root := with("local/a.pem", key("")).write(t)
	initRepository(t, root)
	output, code := run(t, "guard-no-secrets.sh", root)
	require.NotZero(t, code, output)
	require.NoError(t, os.WriteFile(filepath.Join(root, ".gitignore"), []byte("/local/\n"), 0o600))
	output, code = run(t, "guard-no-secrets.sh", root)
	assert.Zero(t, code, output)

	gone := filepath.Join(root, "gone.md")
	require.NoError(t, os.WriteFile(gone, []byte("text\n"), 0o600))
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "add", "gone.md").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Remove(gone))
	output, code = run(t, "guard-words.sh", root)
	assert.Zero(t, code, output)
}

func TestGuardOnAMissingTreeFails(t *testing.T) {
	scripts, err := filepath.Glob("guard-*.sh")
	require.NoError(t, err)
	for _, script := range scripts {
		output, code := run(t, script, filepath.Join(t.TempDir(), "missing"))
		assert.NotZero(t, code, "%s: %s", script, output)
	}
}

func TestRunnerReportsEveryGuard(t *testing.T) {
	output, code := run(t, "run.sh", clean.write(t))
	assert.Zero(t, code, output)
	assert.Contains(t, output, "run.sh: 5 guards passed\n")

	offending := with("a.pem", key(""))
	offending["x.md"] = "TODO\n"
	output, code = run(t, "run.sh", offending.write(t))
	assert.Equal(t, 1, code)
	assert.Contains(t, output, "a.pem:1: a private key")
	assert.Contains(t, output, "x.md:1:")
	assert.Contains(t, output, "guard-package-names: ok", "a failure must not hide the guards after it")
	assert.Contains(t, output, "run.sh: 2 of 5 guards failed: guard-no-secrets guard-words\n")
}

func TestRunnerWithoutGuardsFails(t *testing.T) {
	script, err := os.ReadFile("run.sh")
	require.NoError(t, err)
	alone := filepath.Join(t.TempDir(), "run.sh")
	require.NoError(t, os.WriteFile(alone, script, 0o600))
	output, code := run(t, alone, clean.write(t))
	assert.Equal(t, 1, code)
	assert.Contains(t, output, "nothing was checked")
}
