package cli

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/jointoken"
)

func TestClusterMembers(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	require.True(t, c.Do(fleet.AnnounceNode{Node: fleet.ClusterNode{ID: apitest.NodeID, Address: "c1:8444", URL: "https://c1:8443", Version: "v1", Level: 2}}).OK())
	table := lines(p.does("cluster", "members"))
	assert.Equal(t, []string{"NODE", "ROLE", "HEALTH", "ADDRESS", "VERSION", "APPLIED", "BEHIND", "LEADER HEARD", "CERTIFICATE", "URL"}, columns(table[0]))
	assert.Equal(t, []string{apitest.NodeID, "leader", "healthy"}, columns(table[1])[:3])
	assert.Contains(t, table[1], "https://c1:8443")
	assert.Contains(t, table[len(table)-1], "as seen from "+apitest.NodeID)
	assert.Equal(t, apitest.NodeID, reads[resource.Members](p, "cluster", "members").Leader)

	assert.Contains(t, p.does("cluster", "health"), "cluster:    healthy\n")
	assert.Contains(t, p.does("cluster", "health"), "1, of which 1 works; 1 is needed: none more may fail")
	assert.True(t, reads[resource.ClusterHealth](p, "cluster", "health").Healthy)
	assert.Contains(t, p.does("cluster", "health", "--watch"), "the cluster is well\n")
	assert.Contains(t, p.fails(1, "cluster", "health", "--watch", "--every", "1ms"), "flag --interval 1ms: expected 1s or more")
	stdout, _, _ := p.run("__complete", "cluster", "remove", "")
	assert.Contains(t, stdout, apitest.NodeID+"\t")
}

// What is wrong is told with what to do, and in the exit status.
func TestClusterThatIsNotWell(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	require.True(t, c.Do(fleet.AnnounceNode{Node: fleet.ClusterNode{ID: "lost", Address: "lost:8444", Level: 2}}).OK())
	c.Sleep(time.Hour)
	stdout, stderr, status := p.run("cluster", "health")
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "NOT HEALTHY")
	assert.Contains(t, stdout, "\nwarning  lost was let in and never became a member\n  start it, ")
	assert.Equal(t, "certctl: the cluster is not well: 1 problem\n", stderr)
	stdout, _, status = p.run("cluster", "health", "--output", "json")
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, `"healthy": false`)

	// Watching ends when somebody has mended it.
	watched := make(chan string, 1)
	go func() {
		stdout, _, _ := p.run("cluster", "health", "--watch", "--interval", "1s")
		watched <- stdout
	}()
	c.OnChange(func(string, uint64) error { return cluster.ErrNoMember })
	p.does("cluster", "remove", "lost", "--yes")
	select {
	case text := <-watched:
		assert.True(t, strings.HasSuffix(text, "the cluster is well\n"), text)
	case <-time.After(time.Minute):
		t.Fatal("the watch does not end")
	}
}

func TestClusterChanges(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	type change struct {
		id   string
		prev uint64
	}
	var changes []change
	var refusal error
	c.OnChange(func(id string, prev uint64) error {
		changes = append(changes, change{id, prev})
		return refusal
	})
	assert.Equal(t, apitest.NodeID+" leads\n", p.does("cluster", "transfer", apitest.NodeID))
	assert.Equal(t, apitest.NodeID+" leads\n", p.does("cluster", "transfer"))
	configuration := reads[resource.Members](p, "cluster", "members").ConfigurationIndex
	p.does("cluster", "remove", "c3", "--yes")
	assert.Equal(t, []change{{apitest.NodeID, 0}, {"", 0}, {"c3", configuration}}, changes)

	_, stderr, status := p.run("cluster", "remove", apitest.NodeID)
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "is removed from the cluster for good. 0 voters are left, of which 0 may fail.")
	assert.Contains(t, stderr, "say --yes if you mean it")
	assert.Len(t, changes, 3, "nobody said yes")
	refusal = &cluster.QuorumError{Reason: "too few would be left"}
	assert.Contains(t, p.fails(1, "cluster", "remove", "c3", "--yes"), "too few would be left [conflict]; bring the other members back first")
	refusal = &cluster.ConflictError{Index: 9}
	assert.Contains(t, p.fails(1, "cluster", "remove", "c3", "--yes"), "the members of the cluster have changed")
	refusal = cluster.ErrNoMember
	assert.Contains(t, p.fails(1, "cluster", "transfer", "c9"), "no member of the cluster has this id")
}

func TestMembersGoByTheirNames(t *testing.T) {
	m := &resource.Members{Items: []resource.Member{
		{ID: "a", Address: "c1.example.com:8444", URL: "https://api1.example.com:8443"}, {ID: "b", Address: "c2.example.com:8444", URL: "https://api2.example.com"},
		{ID: "d", Address: "10.0.0.9:8444", URL: "https://shared.example.com"}, {ID: "e", Address: "10.0.0.10:8444", URL: "https://shared.example.com"},
		{ID: "c1.example.com:8444"}, {ID: "f", Address: "[2001:db8::1]:8444"},
	}}
	for text, want := range map[string]string{
		"a": "a", "c2.example.com": "b", "c2.example.com:8444": "b", "api1.example.com": "a", "https://api2.example.com": "b", "10.0.0.9": "d",
		"2001:db8::1": "f", "shared.example.com": "shared.example.com", "c1.example.com:8444": "c1.example.com:8444", "none": "none", "": "",
	} {
		assert.Equal(t, want, memberID(m, text), text)
	}
}

func TestJoinTokenCommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	said := p.does("cluster", "join-token", "create", "--ttl", "15m", "--description", "c2")
	_, rest, found := strings.Cut(said, "  echo ")
	require.True(t, found, said)
	token, err := jointoken.Parse(strings.Fields(rest)[0])
	require.NoError(t, err)
	assert.Equal(t, []string{apitest.EnrollmentURL}, token.URLs)
	assert.Contains(t, said, "shown this once")
	assert.Contains(t, said, "sudo certctl-coordinator install && sudo certctl-coordinator start")
	assert.Contains(t, said, "CERTCTL_CLUSTER_JOIN_TOKEN")
	listed := p.does("cluster", "join-token", "list")
	assert.Contains(t, listed, token.ID)
	assert.Contains(t, listed, "c2")
	assert.NotContains(t, listed, strings.Split(token.Reveal(), ".")[2])
	_, stderr, status := p.run("cluster", "join-token", "revoke", token.ID)
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "say --yes if you mean it")
	assert.Len(t, reads[listOf[resource.JoinToken]](p, "cluster", "join-token", "list", "--state", "usable").Items, 1, "nobody said yes")
	assert.Equal(t, "join token "+token.ID+" is revoked\n", p.does("cluster", "join-token", "revoke", token.ID, "--yes"))
	assert.Empty(t, reads[listOf[resource.JoinToken]](p, "cluster", "join-token", "list", "--state", "usable").Items)
	made := reads[resource.CreatedJoinToken](p, "cluster", "join-token", "create")
	_, err = jointoken.Parse(made.Token)
	require.NoError(t, err)
	quiet := p.does("cluster", "join-token", "create", "--quiet")
	token, err = jointoken.Parse(quiet)
	require.NoError(t, err)
	assert.Equal(t, token.Reveal()+"\n", quiet)
	assert.Contains(t, p.fails(1, "cluster", "join-token", "create", "--ttl", "8d"), `flag --ttl "8d": expected at most 7 days`)
	assert.Contains(t, p.fails(1, "cluster", "join-token", "revoke", "none", "--yes"), "there is no join token with this id")
}

func TestRotateClusterCA(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	key, err := c.CA.SealKey()
	require.NoError(t, err)
	root, err := clusterca.Create(key, c.Now())
	require.NoError(t, err)
	require.True(t, c.Do(fleet.InitClusterCA{Authority: root}).OK())
	_, stderr, status := p.run("cluster", "rotate-ca")
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "say --yes")
	assert.Contains(t, p.does("cluster", "rotate-ca", "--yes"), "the new root is published and signs next; it waits for "+apitest.NodeID+" (it has not said yet what it trusts)")
	assert.Contains(t, p.fails(1, "cluster", "rotate-ca", "--yes"), "a rotation of the cluster's CA is under way")
}

func TestDiagnose(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	_, _ = c.Recent.Write([]byte("{\"msg\":\"a line\"}\n"))
	file := filepath.Join(p.home, "case.tar.gz")
	said := p.does("cluster", "diagnose", "--file", file)
	assert.Contains(t, said, "report.json settings.yaml metrics.txt log.jsonl goroutines.txt")
	assert.Contains(t, said, file)
	info, err := os.Stat(file)
	require.NoError(t, err)
	if filepath.Separator == '/' {
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	// The tokens of the coordinator and of who asks are in no file.
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	uncompressed, err := gzip.NewReader(f)
	require.NoError(t, err)
	files := 0
	for archive := tar.NewReader(uncompressed); ; files++ {
		_, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		text, err := io.ReadAll(archive)
		require.NoError(t, err)
		assert.NotContains(t, string(text), secretOf(c.Admin.Reveal()))
	}
	assert.Equal(t, 9, files)
	held := reads[diagnosis](p, "cluster", "diagnose", "--file", file)
	require.Len(t, held.Nodes, 1)
	assert.Equal(t, apitest.NodeID, held.Nodes[0].Node)
	assert.Len(t, held.Nodes[0].Files, 5)
	assert.True(t, held.Healthy)
	assert.Contains(t, p.fails(1, "cluster", "diagnose", "--file", filepath.Join(p.home, "none", "x")), "flag --file")
	t.Setenv("CERTCTL_TOKEN", c.Token(fleet.RoleOperator, 0).Reveal())
	assert.Contains(t, p.fails(1, "cluster", "diagnose", "--file", file), "this needs admin")
}
