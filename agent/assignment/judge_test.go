package assignment

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// host is one that lets the centre write below dir and reload nginx.
func host(t testing.TB, dir string) Host {
	t.Helper()
	var s config.Settings
	_, err := settings.Load(&s, settings.Options{File: "agent.yaml", Text: []byte(fmt.Sprintf(`
state_dir: %[1]s
issuers:
  public:
    acme: {directory: "https://acme.example/directory", terms_agreed: true}
assignments:
  allow_paths: [%[2]s]
  allow_commands:
    - command: [systemctl, reload, nginx]
certificates:
  - name: local
    names: [local.example.com]
    deployments:
      - files: {fullchain: %[3]s}
`, quoted(filepath.Join(dir, "state")), quoted(filepath.Join(dir, "certs")), quoted(filepath.Join(dir, "certs", "local.pem"))))})
	require.NoError(t, err)
	return Host{Settings: &s, Patterns: []string{"**.example.com"}}
}

func quoted(text string) string { return strings.Trim(flow([]string{text}), "[]") }

func given(name, definition string) wire.Assignment {
	return wire.Assignment{Name: name, Revision: 7, Certificate: json.RawMessage(definition)}
}

func judgeOne(h Host, definition string) Verdict {
	return h.Judge([]wire.Assignment{given("www", definition)})[0]
}

func TestAnAssignmentThatIsAllowed(t *testing.T) {
	dir := t.TempDir()
	h := host(t, dir)
	v := judgeOne(h, fmt.Sprintf(`{"names":["www.example.com"],"issuer":"public","fallback_issuers":["coordinator"],"deployments":[
		{"files":{"fullchain":%s,"key":%s},"check":["systemctl","reload","nginx"],"reload":["systemctl","reload","nginx"],"verify":{"address":"127.0.0.1:443"}}]}`,
		quoted(filepath.Join(dir, "certs", "www", "chain.pem")), quoted(filepath.Join(dir, "certs", "www", "key.pem"))))
	require.Equal(t, wire.AssignmentActive, v.State, v.Detail)
	assert.Equal(t, "www", v.Certificate.Name)
	assert.Equal(t, []string{"public", "coordinator"}, v.Certificate.Issuers())
	assert.Equal(t, "30s", v.Certificate.Deployments[0].ReloadTimeout.String(), "defaults are those of the configuration")
	assert.Equal(t, wire.AssignmentReport{Name: "www", Revision: 7, State: wire.AssignmentActive}, v.Report())

	v = judgeOne(h, `{"names":["www.example.com"]}`)
	assert.Equal(t, wire.AssignmentActive, v.State, "without deployments nothing has to be allowed")
	assert.Equal(t, config.CoordinatorIssuer, v.Certificate.Issuer)
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	inCerts := filepath.Join(dir, "certs")
	file := func(path string) string {
		return fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{"fullchain":%s}}]}`, quoted(path))
	}
	command := func(field string) string {
		return fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{"fullchain":%s},%s}]}`, quoted(filepath.Join(inCerts, "a")), field)
	}
	for name, c := range map[string]struct{ definition, says string }{
		"not JSON":         {`{`, "the definition is not JSON"},
		"YAML":             {`names: [www.example.com]`, "the definition is not JSON"},
		"nothing":          {`{}`, "names: missing"},
		"unknown key":      {`{"names":["www.example.com"],"isuer":"public"}`, "isuer: unknown key"},
		"with a name":      {`{"names":["www.example.com"],"name":"other"}`, "name: unknown key"},
		"placeholder":      {`{"names":["www.example.com"],"deployments":[{"files":{"key":"/a/${hostname}"}}]}`, "the coordinator did not fill in"},
		"foreign name":     {`{"names":["www.example.com","www.example.org"],"issuer":"public"}`, `www.example.org`},
		"unknown issuer":   {`{"names":["www.example.com"],"issuer":"other"}`, `issuer: there is no issuer "other"; expected one of: coordinator, coordinator/NAME, public`},
		"wildcard":         {`{"names":["*.www.example.com"],"issuer":"public","fallback_issuers":["coordinator"]}`, "needs an issuer whose challenge is dns-01"},
		"other directory":  {file(filepath.Join(dir, "elsewhere", "a.pem")), fmt.Sprintf(`add the line "- %s" below assignments.allow_paths`, filepath.Join(dir, "elsewhere"))},
		"directory itself": {file(inCerts), "does not let the coordinator write"},
		"almost":           {file(inCerts + "-too/a.pem"), "does not let the coordinator write"},
		"up":               {file(inCerts + "/../elsewhere/a.pem"), `without ".", ".." and empty steps`},
		"up and back":      {file(inCerts + "/x/../a.pem"), `without ".", ".." and empty steps`},
		"empty step":       {file(inCerts + "//a.pem"), `without ".", ".." and empty steps`},
		"relative":         {file("certs/a.pem"), "expected an absolute path"},
		"state directory":  {file(filepath.Join(dir, "state", "state.db")), "directory of the agent itself"},
		"key directory":    {file(filepath.Join(dir, "state", "keys", "identity", "x")), "directory of the agent itself"},
		"taken by local":   {file(filepath.Join(inCerts, "local.pem")), `is written by the host's own certificate "local"`},
		"check":            {command(`"check":["sh","-c","a"]`), `deployments[0].check: this host does not let the coordinator run this; to allow it, add the line "- command: ["sh","-c","a"]" below assignments.allow_commands`},
		"reload":           {command(`"reload":["systemctl","reload"]`), "deployments[0].reload: "},
		"longer reload":    {command(`"reload":["systemctl","reload","nginx","x"]`), "deployments[0].reload: "},
		"verify":           {command(`"verify":{"command":["x"]}`), "deployments[0].verify.command: "},
	} {
		t.Run(name, func(t *testing.T) {
			v := judgeOne(host(t, dir), c.definition)
			assert.Equal(t, wire.AssignmentRefused, v.State)
			assert.Contains(t, v.Detail, c.says)
			assert.True(t, strings.HasPrefix(v.Detail, `assignment "www": `), v.Detail)
			assert.NotContains(t, v.Detail, "\n")
			assert.LessOrEqual(t, len(v.Detail), wire.MaxTextLen)
			assert.Nil(t, v.Certificate)
		})
	}
}

// The line that a refusal names makes the assignment active.
func TestTheMendMends(t *testing.T) {
	dir := t.TempDir()
	h := host(t, dir)
	path := filepath.Join(dir, "nginx", "www.pem")
	definition := fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{"fullchain":%s},"reload":["sh","-c","a \"b\" <c>"]}]}`, quoted(path))
	v := judgeOne(h, definition)
	require.Equal(t, wire.AssignmentRefused, v.State)
	allowPath := between(t, v.Detail, `add the line "`, `" below assignments.allow_paths`)
	allowCommand := between(t, v.Detail[strings.Index(v.Detail, "reload"):], `add the line "`, `" below assignments.allow_commands`)
	var mended config.Settings
	_, err := settings.Load(&mended, settings.Options{File: "agent.yaml", Text: []byte(fmt.Sprintf("assignments:\n  allow_paths:\n    %s\n  allow_commands:\n    %s\n", allowPath, allowCommand))})
	require.NoError(t, err)
	h.Settings.Assignments = mended.Assignments
	v = judgeOne(h, definition)
	assert.Equal(t, wire.AssignmentActive, v.State, v.Detail)
}

func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, from)
	require.True(t, ok, text)
	found, _, ok := strings.Cut(rest, to)
	require.True(t, ok, text)
	return found
}

func TestWhatTheHostSays(t *testing.T) {
	dir := t.TempDir()
	h := host(t, dir)
	good := `{"names":["www.example.com"]}`

	v := h.Judge([]wire.Assignment{given("local", `{"broken`)})[0]
	assert.Equal(t, wire.AssignmentShadowed, v.State, "the host's own wins, whatever the centre's is")
	assert.Contains(t, v.Detail, `a certificate named "local"`)

	none := h
	none.Patterns = nil
	assert.Contains(t, judgeOne(none, good).Detail, "enrolment allows no names")
	none.Patterns = []string{"*"}
	assert.Contains(t, judgeOne(none, good).Detail, "cannot be read")

	h.Settings.Assignments.Accept = false
	v = judgeOne(h, good)
	assert.Equal(t, wire.AssignmentRefused, v.State)
	assert.Contains(t, v.Detail, `write "accept: true" below assignments`)
	h.Settings.Assignments.Accept = true

	h.Settings.Assignments.AllowPaths = nil
	assert.Contains(t, judgeOne(h, fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{"key":%s}}]}`, quoted(filepath.Join(dir, "certs", "a")))).Detail, "does not let")
	assert.Equal(t, wire.AssignmentActive, judgeOne(h, good).State)
}

// The centre must not look into networks through its hosts.
func TestWhereVerifyMayConnect(t *testing.T) {
	dir := t.TempDir()
	h := host(t, dir)
	h.Patterns = append(h.Patterns, "10.9.0.0/16")
	h.Addresses = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(10, 0, 0, 5), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("fe80::5"), Mask: net.CIDRMask(64, 128)}}, nil
	}
	verify := func(address string) string {
		return fmt.Sprintf(`{"names":["www.example.com","*.web.example.com","10.9.0.1"],"deployments":[{"files":{"fullchain":%s},"verify":{"address":%q}}]}`,
			quoted(filepath.Join(dir, "certs", "a.pem")), address)
	}
	for _, address := range []string{"127.0.0.1:443", "127.9.9.9:8443", "[::1]:443", "[::ffff:127.0.0.1]:443", "localhost:443", "LocalHost.:443", "10.0.0.5:443", "www.example.com:443", "WWW.example.com.:443", "a.web.example.com:443", "10.9.0.1:443"} {
		v := judgeOne(h, verify(address))
		assert.Equal(t, wire.AssignmentActive, v.State, v.Detail)
	}
	for _, address := range []string{"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::5]:443", "[fe80::5%eth0]:443", "10.0.0.6:443", "0.0.0.0:443", "db.example.com:443", "a.b.web.example.com:443", "2130706433:443", "[fd00:ec2::254]:80", "10.9.0.2:443"} {
		h.Settings.Assignments.AllowVerify = nil
		v := judgeOne(h, verify(address))
		require.Equal(t, wire.AssignmentRefused, v.State, address)
		assert.Contains(t, v.Detail, "deployments[0].verify.address: ")

		// The line that the refusal names allows this one, and no other port.
		line := between(t, v.Detail, `add the line "`, `" below assignments.allow_verify`)
		var mended config.Settings
		_, err := settings.Load(&mended, settings.Options{File: "agent.yaml", Text: []byte("assignments:\n  allow_verify:\n    " + line + "\n")})
		require.NoError(t, err)
		h.Settings.Assignments.AllowVerify = mended.Assignments.AllowVerify
		v = judgeOne(h, verify(address))
		assert.Equal(t, wire.AssignmentActive, v.State, v.Detail)
		assert.Equal(t, wire.AssignmentRefused, judgeOne(h, verify(address+"1")).State)
	}

	h.Settings.Assignments.AllowVerify = []string{"0.0.0.0/0"}
	assert.Equal(t, wire.AssignmentActive, judgeOne(h, verify("10.0.0.6:443")).State)
	assert.Equal(t, wire.AssignmentRefused, judgeOne(h, verify("169.254.169.254:80")).State, "a link's own network must be listed")
	assert.Equal(t, wire.AssignmentRefused, judgeOne(h, verify("db.example.com:443")).State, "a name may lead anywhere")
	h.Settings.Assignments.AllowVerify = []string{"169.254.169.0/24"}
	assert.Equal(t, wire.AssignmentActive, judgeOne(h, verify("169.254.169.254:80")).State)
	h.Settings.Assignments.AllowVerify = nil
	assert.Equal(t, wire.AssignmentRefused, judgeOne(h, verify(":443")).State)
	h.Addresses = func() ([]net.Addr, error) { return nil, errors.New("no netlink") }
	assert.Contains(t, judgeOne(h, verify("10.0.0.5:443")).Detail, "no netlink")
}

func TestEveryFileBelongsToOne(t *testing.T) {
	dir := t.TempDir()
	h := host(t, dir)
	in := func(key string, steps ...string) string {
		return fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{%q:%s}}]}`, key, quoted(filepath.Join(append([]string{dir, "certs"}, steps...)...)))
	}
	verdicts := h.Judge([]wire.Assignment{
		given("a", in("key", "x.pem")), given("b", in("fullchain", "x.pem")), given("c", in("directory", "tree")),
		given("d", in("key", "tree", "privkey.pem")), given("e", in("key", "deep", "a", "k.pem")), given("f", in("directory", "deep")),
		given("g", in("key", "tree.pem")),
		given("h", strings.Replace(in("key", "y.pem"), `}]}`, fmt.Sprintf(`},{"files":{"combined":%s}}]}`, quoted(filepath.Join(dir, "certs", "y.pem"))), 1)),
	})
	want := map[string]string{"b": `the assignment "a"`, "d": `the assignment "c"`, "f": `the assignment "e"`, "h": "another deployment"}
	for _, v := range verdicts {
		if says, refused := want[v.Name]; refused {
			assert.Equal(t, wire.AssignmentRefused, v.State, v.Name)
			assert.Contains(t, v.Detail, says)
		} else {
			assert.Equal(t, wire.AssignmentActive, v.State, v.Detail)
		}
	}
}

// Whatever path leads to it, a file has one owner.
func TestALinkTakesNoFileOfAnother(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making a symbolic link needs a privilege there")
	}
	dir := t.TempDir()
	h := host(t, dir)
	certs := filepath.Join(dir, "certs")
	require.NoError(t, os.MkdirAll(filepath.Join(certs, ".tree.certctl-1"), 0o700))
	for link, to := range map[string]string{"lnk": certs, "tree": ".tree.certctl-1", "other.pem": "local.pem"} {
		require.NoError(t, os.Symlink(to, filepath.Join(certs, link)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(certs, "local.pem"), nil, 0o600))
	in := func(key, path string) string {
		return fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{%q:%s}}]}`, key, quoted(filepath.Join(certs, path)))
	}
	verdicts := h.Judge([]wire.Assignment{
		given("tree", in("directory", "tree")),
		given("through a directory", in("fullchain", "lnk/local.pem")), given("through a file", in("fullchain", "other.pem")),
		given("into a tree", in("key", "lnk/tree/privkey.pem")), given("behind a tree", in("key", ".tree.certctl-1/privkey.pem")),
		given("a tree again", in("directory", "lnk/tree")),
		given("free", in("fullchain", "lnk/free.pem")), given("the same", in("fullchain", "free.pem")),
	})
	active := map[string]bool{"tree": true, "free": true}
	for _, v := range verdicts {
		if active[v.Name] {
			assert.Equal(t, wire.AssignmentActive, v.State, v.Detail)
			continue
		}
		assert.Equal(t, wire.AssignmentRefused, v.State, v.Name)
		assert.Contains(t, v.Detail, "every file belongs to one deployment")
	}
}

func TestSymbolicLinksLeadNowhereElse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making a symbolic link needs a privilege there")
	}
	dir := t.TempDir()
	h := host(t, dir)
	certs := filepath.Join(dir, "certs")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "elsewhere"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(certs, "real"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "state", "keys"), 0o700))
	for link, to := range map[string]string{
		"out": filepath.Join(dir, "elsewhere"), "in": filepath.Join(certs, "real"), "loop": filepath.Join(certs, "loop"),
		"dangling": filepath.Join(dir, "missing"), "file": filepath.Join(dir, "elsewhere", "passwd"), "state": filepath.Join(dir, "state"),
	} {
		require.NoError(t, os.Symlink(to, filepath.Join(certs, link)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "elsewhere", "passwd"), nil, 0o600))
	for path, says := range map[string]string{
		"out/a.pem": "leads through a symbolic link", "out/deeper/a.pem": "leads through a symbolic link", "file": "leads through a symbolic link",
		"loop/a.pem": "cannot tell where", "dangling": "cannot tell where", "dangling/a.pem": "cannot tell where", "real/a.pem": "", "in/a.pem": "", "new/deeper/a.pem": "",
		"state/state.db": "directory of the agent itself", "state/keys/a": "directory of the agent itself",
	} {
		v := judgeOne(h, fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{"key":%s}}]}`, quoted(filepath.Join(certs, filepath.FromSlash(path)))))
		if says == "" {
			assert.Equal(t, wire.AssignmentActive, v.State, "%s: %s", path, v.Detail)
			continue
		}
		assert.Equal(t, wire.AssignmentRefused, v.State, path)
		assert.Contains(t, v.Detail, says, path)
	}

	// A link that stands for the allowed directory itself is the host's own choice.
	require.NoError(t, os.Symlink(certs, filepath.Join(dir, "alias")))
	h.Settings.Assignments.AllowPaths = []string{filepath.Join(dir, "alias")}
	v := judgeOne(h, fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{"key":%s}}]}`, quoted(filepath.Join(dir, "alias", "a.pem"))))
	assert.Equal(t, wire.AssignmentActive, v.State, v.Detail)
}

func TestWhatOnlyTheMakingTells(t *testing.T) {
	h := host(t, t.TempDir())
	h.Make = func(c *config.Certificate) error {
		if c.Name == "www" {
			return errors.New("there is no user\nnamed www")
		}
		return nil
	}
	verdicts := h.Judge([]wire.Assignment{given("mail", `{"names":["mail.example.com"]}`), given("www", `{"names":["www.example.com"]}`)})
	assert.Equal(t, []wire.AssignmentReport{
		{Name: "mail", Revision: 7, State: wire.AssignmentActive},
		{Name: "www", Revision: 7, State: wire.AssignmentRefused, Detail: `assignment "www": there is no user; named www`},
	}, Reports(verdicts))
	assert.Nil(t, verdicts[1].Certificate)
	assert.Len(t, InForce(verdicts), 1)
}

// What is refused as a change leaves the definition before it in force, as long
// as that is allowed.
func TestTheLastOneThatWasAllowedStaysInForce(t *testing.T) {
	dir := t.TempDir()
	h := host(t, dir)
	good := given("www", fmt.Sprintf(`{"names":["www.example.com"],"deployments":[{"files":{"fullchain":%s}}]}`, quoted(filepath.Join(dir, "certs", "www.pem"))))
	bad := given("www", `{"names":["www.example.com"],"deployments":[{"files":{"fullchain":"/etc/passwd"}}]}`)
	bad.Revision = 8

	h.Accepted = InForce(h.Judge([]wire.Assignment{good}))
	assert.Equal(t, []wire.Assignment{good}, h.Accepted)
	verdicts := h.Judge([]wire.Assignment{bad})
	v := verdicts[0]
	assert.Equal(t, wire.AssignmentRefused, v.State)
	assert.EqualValues(t, 8, v.Report().Revision)
	assert.Contains(t, v.Detail, `revision 7 stays in force; assignment "www": deployments[0].files.fullchain: this host does not let`)
	assert.Equal(t, filepath.Join(dir, "certs", "www.pem"), v.Certificate.Deployments[0].Files.FullChain)
	assert.Equal(t, []wire.Assignment{good}, InForce(verdicts), "and again, after a restart")
	h.Accepted = InForce(verdicts)

	// The file is still its own.
	other := given("zzz", string(good.Certificate))
	assert.Contains(t, h.Judge([]wire.Assignment{bad, other})[1].Detail, `is written by the assignment "www"`)

	// Rules of the host, and the centre's taking it back, hold for that one too.
	assert.Empty(t, h.Judge(nil))
	h.Settings.Assignments.AllowPaths = nil
	v = h.Judge([]wire.Assignment{bad})[0]
	assert.Nil(t, v.Certificate)
	assert.NotContains(t, v.Detail, "stays in force")
	h.Settings.Assignments.AllowPaths, h.Settings.Assignments.Accept = []string{filepath.Join(dir, "certs")}, false
	assert.Nil(t, h.Judge([]wire.Assignment{bad})[0].Certificate)
}

func FuzzJudge(f *testing.F) {
	dir := f.TempDir()
	certs := filepath.Join(dir, "certs")
	h := host(f, dir)
	f.Add(`{"names":["www.example.com"]}`)
	f.Add(fmt.Sprintf(`{"names":["*.a.example.com"],"deployments":[{"files":{"directory":%s},"reload":["systemctl","reload","nginx"]}]}`, quoted(filepath.Join(certs, "a"))))
	f.Add(fmt.Sprintf(`{"names":["a.example.com"],"deployments":[{"files":{"key":%s}}]}`, quoted(certs+"/../x")))
	f.Add("names: [a.example.com]\ndeployments: [{files: {key: /etc/passwd}}]")
	f.Fuzz(func(t *testing.T, definition string) {
		v := judgeOne(h, definition)
		if v.State != wire.AssignmentActive {
			require.Equal(t, wire.AssignmentRefused, v.State)
			require.NotEmpty(t, v.Detail)
			require.LessOrEqual(t, len(v.Detail), wire.MaxTextLen)
			return
		}
		require.Empty(t, v.Detail)
		for _, name := range v.Certificate.Names {
			require.True(t, strings.HasSuffix(strings.TrimSuffix(strings.ToLower(name), "."), ".example.com"), name)
		}
		for _, name := range v.Certificate.Issuers() {
			require.Contains(t, []string{"coordinator", "public"}, name)
		}
		for _, d := range v.Certificate.Deployments {
			for _, p := range d.Files.Paths() {
				require.True(t, strings.HasPrefix(p.Path, certs+string(filepath.Separator)), p.Path)
				require.NotContains(t, p.Path, "..")
			}
			for _, argv := range [][]string{d.Check, d.Reload} {
				if len(argv) > 0 {
					require.Equal(t, []string{"systemctl", "reload", "nginx"}, argv)
				}
			}
			require.True(t, d.Verify == nil || len(d.Verify.Command) == 0)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	dir := b.TempDir()
	h := host(b, dir)
	var list []wire.Assignment
	for i := range wire.MaxAssignments {
		list = append(list, given(fmt.Sprintf("a-%04d", i), fmt.Sprintf(`{"names":["a%d.example.com"],"deployments":[{"files":{"key":%s}}]}`, i, quoted(filepath.Join(dir, "certs", fmt.Sprint(i))))))
	}
	for b.Loop() {
		for _, v := range h.Judge(list) {
			if v.State != wire.AssignmentActive {
				b.Fatal(v.Detail)
			}
		}
	}
}
