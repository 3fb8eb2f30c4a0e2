package agentapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func (w *world) announce(id, url string) {
	w.t.Helper()
	w.do(fleet.AnnounceNode{Node: fleet.ClusterNode{
		ID: id, Address: id + ".example.com:8444", URL: url, Level: fleet.Level, KeyFingerprint: strings.Repeat("0", 64),
	}})
}

// Agents are told of the nodes when they know others, and not otherwise.
func TestAgentsAreToldOfTheNodes(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	told := func(digest string) []string {
		t.Helper()
		request := a.request()
		request.ServersDigest = digest
		return a.send(request).Servers
	}
	none := wire.ServersDigest(nil)
	assert.Nil(t, told(none), "there are none")

	w.announce("node-a", "https://a.example.com:8443")
	assert.Nil(t, told(none), "a cluster of one is reached as before")
	w.announce("node-b", "https://a.example.com:8443")
	assert.Nil(t, told(none), "nor is one behind a balancer told")
	w.announce("node-b", "https://b.example.com:8443")
	w.announce("node-c", "https://c.example.com:8443")
	w.announce("node-d", "") // does not say
	three := []string{"https://a.example.com:8443", "https://b.example.com:8443", "https://c.example.com:8443"}
	assert.Equal(t, three, told(none))
	index := w.node.AppliedIndex()
	assert.Nil(t, told(wire.ServersDigest(three)))
	assert.Nil(t, told(""), "an earlier version keeps no list")
	assert.Equal(t, index, w.node.AppliedIndex(), "it costs no log entry")

	w.do(fleet.ForgetNode{ID: "node-b"})
	w.do(fleet.ForgetNode{ID: "node-c"})
	assert.Equal(t, three[:1], told(wire.ServersDigest(three)), "who knows more learns that one is left")

	for i := range 8 {
		w.announce(fmt.Sprintf("more-%d", i), fmt.Sprintf("https://more%d.example.com", i))
	}
	assert.LessOrEqual(t, len(told(none)), wire.MaxServers)

	request := a.request()
	request.ServersDigest = "x"
	p := w.post(a, wire.SyncPath, request, nil)
	if assert.NotNil(t, p) {
		assert.Equal(t, "servers_digest", p.Field)
	}
}
