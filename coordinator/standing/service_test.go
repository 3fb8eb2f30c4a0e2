package standing

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/logring"
	"github.com/certctl/certctl/shared/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stand is a node of which three are members.
type stand struct {
	id    string
	state *fleet.State
}

func (s *stand) State() *fleet.State { return s.state }
func (s *stand) Ready() cluster.Readiness {
	return cluster.Readiness{Running: true, LeaderKnown: true, Applied: true}
}
func (s *stand) Leader() (id, address string) {
	return "a", "a:8444"
}

func (s *stand) Status() cluster.Status {
	status := cluster.Status{Leader: s.id == "a", Term: 2, CommitIndex: 10, AppliedIndex: 10, LastIndex: 11}
	if !status.Leader {
		status.LastContact = time.Now()
	}
	return status
}

func (s *stand) Members() ([]cluster.Member, uint64) {
	var members []cluster.Member
	for _, id := range []string{"a", "b", "c"} {
		members = append(members, cluster.Member{ID: id, Address: id + ":8444", Voter: true, Leader: id == "a"})
	}
	return members, 3
}

type books struct{}

func (books) Status() (history.Status, error) { return history.Status{Through: 10, Facts: 3}, nil }

// wires connect the nodes by id.
type wires map[string]func(*http.Request) (*http.Response, error)

func (w wires) Transport(id, address string) http.RoundTripper {
	if address != id+":8444" {
		return refuses(fmt.Errorf("%s is not the address of %s", address, id))
	}
	return roundTrip(w[id])
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func refuses(err error) roundTrip {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func answers(h http.Handler) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result(), nil
	}
}

func says(status int, body string) roundTrip {
	return answers(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
}

func service(t *testing.T, id string, peers Peers, change func(*Config)) *Service {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	c := Config{NodeID: id, DataDir: t.TempDir(), Node: &stand{id, state}, Journal: books{}, Peers: peers, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	require.NoError(t, err)
	return s
}

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{})
	require.ErrorContains(t, err, "is missing")
}

func TestEveryMemberIsAsked(t *testing.T) {
	end := time.Now().Add(20 * 24 * time.Hour)
	b := service(t, "b", nil, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Hour) }
		c.CertificateNotAfter = func() time.Time { return end }
	})
	a := service(t, "a", wires{"b": answers(b.Handler()), "c": refuses(errors.New("connection refused"))}, nil)
	members := a.Members(t.Context())
	require.Len(t, members.Items, 3)
	assert.Equal(t, []resource.MemberHealth{resource.MemberHealthy, resource.MemberHealthy, resource.MemberUnreachable},
		[]resource.MemberHealth{members.Items[0].Health, members.Items[1].Health, members.Items[2].Health}, "%+v", members.Items)
	assert.InDelta(t, 3600, members.Items[1].ClockAheadSeconds, 30)
	assert.WithinDuration(t, end, members.Items[1].CertificateNotAfter, time.Second)
	assert.Contains(t, members.Items[2].Reason, "connection refused")
	assert.EqualValues(t, 3, members.ConfigurationIndex)
	health := a.Health(t.Context())
	assert.False(t, health.Healthy)
	assert.Equal(t, 2, health.VotersWorking)
	assert.Equal(t, "a", health.AnsweredBy)
}

// What another node answers is not trusted to be small, or to be an answer.
func TestOddAnswers(t *testing.T) {
	for text, b := range map[string]roundTrip{
		"404 Not Found":          says(http.StatusNotFound, "no"),
		"cannot be read":         says(http.StatusOK, "{"),
		"is larger than":         says(http.StatusOK, strings.Repeat(" ", maxReport+1)),
		"no connections":         nil,
		"not the address of":     refuses(errors.New("x is not the address of b")),
		"its answer broke off: ": answersBrokenly,
	} {
		var peers Peers
		if b != nil {
			peers = wires{"b": b, "c": refuses(errors.New("no"))}
		}
		members := service(t, "a", peers, nil).Members(t.Context())
		assert.Equal(t, resource.MemberUnreachable, members.Items[1].Health)
		assert.Contains(t, members.Items[1].Reason, text)
	}
}

func answersBrokenly(*http.Request) (*http.Response, error) {
	broken := io.MultiReader(strings.NewReader("{"), brokenReader{})
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(broken)}, nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A node that never answers holds nobody up for long.
func TestSilentMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		a := service(t, "a", wires{"b": silent, "c": silent}, nil)
		began := time.Now()
		assert.Equal(t, 1, a.Health(t.Context()).VotersWorking)
		assert.Equal(t, reportPatience, time.Since(began))

		began = time.Now()
		files := unpack(t, a)
		assert.LessOrEqual(t, time.Since(began), 30*time.Second)
		assert.Contains(t, files["README.txt"], "b at b:8444: 0 files; NOT COMPLETE: context deadline exceeded")
		assert.Contains(t, files["README.txt"], "a at a:8444: 5 files\n")
		assert.Contains(t, files["nodes/a/settings.yaml"], "not available")
	})
}

// unpack makes a bundle and takes it apart.
func unpack(t *testing.T, s *Service) map[string]string {
	t.Helper()
	var bundle bytes.Buffer
	require.NoError(t, s.Diagnose(t.Context(), &bundle))
	uncompressed, err := gzip.NewReader(&bundle)
	require.NoError(t, err)
	files := map[string]string{}
	for archive := tar.NewReader(uncompressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		text, err := io.ReadAll(archive)
		require.NoError(t, err)
		directory, name, ok := strings.Cut(header.Name, "/")
		require.True(t, ok)
		require.True(t, strings.HasPrefix(directory, "certctl-diagnosis-"))
		require.NotContains(t, name, "..")
		files[name] = string(text)
	}
}

func TestBundle(t *testing.T) {
	var recent logring.Ring
	for i := range logring.Lines + 1 {
		fmt.Fprintf(&recent, "{\"msg\":\"line %d\"}\n", i)
	}
	b := service(t, "b", nil, func(c *Config) {
		c.Recent = &recent
		c.Metrics = func(w io.Writer) error { _, err := io.WriteString(w, "certctl_raft_term 2\n"); return err }
		c.Settings = func() ([]byte, error) { return []byte("node_id: b\n"), nil }
		c.Backups = func() ([]SnapshotFile, error) { return []SnapshotFile{{Name: "backup-1"}}, errors.New("disk full") }
		snapshot := filepath.Join(c.DataDir, "raft", "snapshots", "2-10-1")
		require.NoError(t, os.MkdirAll(snapshot, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(snapshot, "meta.json"), []byte(`{"Index":10,"Term":2,"Size":77}`), 0o600))
	})
	// A node of another mind sends files that nobody asked for, under names that
	// lead elsewhere, and far too large.
	odd := answers(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		archive := tar.NewWriter(w)
		for _, f := range []file{{"../../etc/passwd", []byte("x")}, {"later.txt", []byte("x")}, {fileLog, bytes.Repeat([]byte("x"), maxFile+1)}, {fileLog, []byte("again")}, {fileMetrics, []byte("fine\n")}} {
			_ = add(archive, f, time.Now())
		}
		_ = archive.Close()
	}))
	a := service(t, "a", wires{"b": answers(b.Handler()), "c": odd}, nil)
	files := unpack(t, a)

	assert.Contains(t, files["health.json"], `"answered_by": "a"`)
	assert.Contains(t, files["members.json"], `"c:8444"`)
	assert.Equal(t, "node_id: b\n", files["nodes/b/settings.yaml"])
	assert.Equal(t, "certctl_raft_term 2\n", files["nodes/b/metrics.txt"])
	assert.True(t, strings.HasPrefix(files["nodes/b/log.jsonl"], `{"msg":"1 earlier lines are not kept in memory`))
	assert.True(t, strings.HasSuffix(files["nodes/b/log.jsonl"], fmt.Sprintf("line %d\"}\n", logring.Lines)))
	assert.Contains(t, files["nodes/b/goroutines.txt"], "goroutine profile:")
	for _, text := range []string{`"node_id": "b"`, `"name": "2-10-1"`, `"size": 77`, `"backup-1"`, `"disk full"`, `"free_bytes"`, `"through": 10`} {
		assert.Contains(t, files["nodes/b/report.json"], text)
	}
	assert.Contains(t, files["nodes/a/log.jsonl"], "not available")

	var names []string
	for name := range files {
		if strings.HasPrefix(name, "nodes/c/") {
			names = append(names, strings.TrimPrefix(name, "nodes/c/"))
		}
	}
	assert.ElementsMatch(t, []string{fileLog, fileMetrics}, names)
	assert.LessOrEqual(t, len(files["nodes/c/log.jsonl"]), maxFile)
	assert.True(t, strings.HasSuffix(files["nodes/c/log.jsonl"], "[cut: this file was larger]\n"))
}

// Secrets that are in the configuration, or are logged as what they are, do not
// get into the bundle.
func TestBundleHoldsNoSecrets(t *testing.T) {
	s := new(config.Settings)
	secrets := []string{"c2VhbC1rZXktb2YtdGhpcy10ZXN0LTEyMzQ1Njc4OTA", "ctj1.abcdefgh.secret-of-a-token"}
	s.CA.SealKey, s.Cluster.JoinToken = settings.NewSecret(secrets[0]), settings.NewSecret(secrets[1])
	var recent logring.Ring
	log := slog.New(recent.Tee(slog.NewTextHandler(new(bytes.Buffer), nil)))
	log.Info("configuration", "seal_key", s.CA.SealKey, "join_token", s.Cluster.JoinToken)
	a := service(t, "a", nil, func(c *Config) {
		c.Recent = &recent
		c.Settings = func() ([]byte, error) { return settings.Effective(s) }
		for _, name := range []string{"seal.key", "admin.token", "cluster/node.key"} {
			secret := "secret-in-the-file-" + name
			secrets = append(secrets, secret)
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(c.DataDir, name)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(c.DataDir, name), []byte(secret), 0o600))
		}
	})
	files := unpack(t, a)
	require.Contains(t, files["nodes/a/settings.yaml"], "[redacted]")
	require.Contains(t, files["nodes/a/log.jsonl"], "join_token")
	for name, text := range files {
		for _, secret := range secrets {
			assert.NotContains(t, text, secret, name)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	list, err := Files(filepath.Join(dir, "none"), ".snap")
	require.NoError(t, err)
	assert.Empty(t, list)
	for i, name := range []string{"old.snap", "new.snap", "other.txt"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
		at := noon.Add(time.Duration(i) * time.Hour)
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), at, at))
	}
	list, err = Files(dir, ".snap")
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, SnapshotFile{Name: "new.snap", Size: 8, At: noon.Add(time.Hour)}, list[0])
}
