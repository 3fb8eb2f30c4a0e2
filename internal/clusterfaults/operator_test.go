package clusterfaults

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/recovery"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

// What an operator does about whole coordinators: with the command line of a
// stopped one, and over the API of one that runs.

func (d *daemons) recover(m *member) *recovery.Comparison {
	t := m.bench.t
	inspected := d.command(m, "inspect", "--output", "json")
	file := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, os.WriteFile(file, inspected, 0o600))
	plan := new(recovery.Comparison)
	require.NoError(t, json.Unmarshal(d.command(m, "plan", file, "--output", "json"), plan))
	d.command(m, "run", "--yes")
	require.NoError(t, removeKept(d.dir(m)))
	return plan
}

// command runs one of "recover".
func (d *daemons) command(m *member, args ...string) []byte {
	t := m.bench.t
	s := d.nodes[m.id].Settings
	text := fmt.Sprintf("data_dir: %q\n", s.DataDir)
	if s.CA.SealKey.IsSet() {
		text += fmt.Sprintf("ca: {seal_key: %q}\n", s.CA.SealKey.Reveal())
	}
	file := filepath.Join(t.TempDir(), "coordinator.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	source := &cli.Source{DefaultFile: file}
	root := &cobra.Command{Use: "certctl-coordinator", SilenceUsage: true, SilenceErrors: true}
	source.Bind(root)
	root.AddCommand(recovery.Command(source))
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append([]string{"recover"}, args...))
	require.NoError(t, root.ExecuteContext(context.Background()), "recover %v: %s%s", args, &out, &errs)
	return out.Bytes()
}

// keepSealKey has every node take the cluster's seal key from its configuration:
// a snapshot is of no use without it.
func (d *daemons) keepSealKey(m *member) {
	if d.nodes[m.id].Settings.CA.SealKey.IsSet() {
		return
	}
	key, err := ca.ReadSealKey(filepath.Join(d.dir(m), "seal.key"))
	require.NoError(m.bench.t, err)
	for _, n := range d.nodes {
		n.Settings.CA.SealKey = settings.NewSecret(key.Reveal())
	}
}

func (d *daemons) save(m *member) snapshot {
	t := m.bench.t
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var file []byte
	last := ""
	m.bench.eventually(ctx, "a snapshot is saved", func() bool {
		status, body, err := d.ask(ctx, m, http.MethodGet, "", nil)
		if err == nil && status == http.StatusOK {
			file = body
			return true
		}
		if now := fmt.Sprintf("%d %v %.200s", status, err, body); now != last {
			last = now
			t.Logf("no snapshot of %s: %s", m.id, now)
		}
		return false
	})
	summary, err := backup.Check(bytes.NewReader(file))
	require.NoError(t, err)
	return snapshot{index: summary.Index, file: file}
}

func (d *daemons) restore(m *member, s snapshot) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dry, err := d.put(ctx, m, "?dry_run=true", s)
	if err != nil {
		return err
	}
	_, err = d.put(ctx, m, "?confirm="+dry.ClusterID, s)
	return err
}

func (d *daemons) put(ctx context.Context, m *member, query string, s snapshot) (restored resource.Restored, err error) {
	status, body, err := d.ask(ctx, m, http.MethodPut, query, s.file)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d: %s", status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &restored)
	}
	return restored, err
}

// ask asks a node about snapshots.
func (d *daemons) ask(ctx context.Context, m *member, method, query string, content []byte) (status int, body []byte, err error) {
	n := d.nodes[m.id]
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.Roots(), MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	request, err := http.NewRequestWithContext(ctx, method, n.URL()+"/api/v1/cluster/snapshot"+query, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", resource.SnapshotContentType)
	request.Header.Set("Authorization", "Bearer "+d.token)
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}
