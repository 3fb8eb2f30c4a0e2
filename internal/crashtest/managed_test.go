//go:build unix

package crashtest

import (
	"time"

	"github.com/certctl/certctl/agent/deploy/file"
	brokered "github.com/certctl/certctl/agent/issuer/coordinator"
	"github.com/certctl/certctl/agent/renewal"
	agentsync "github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
)

// managed is what is configured, in the words of the engine. Orders through the
// coordinator go by syncer, which is nil where there is none.
func (w *world) managed(syncer *agentsync.Client) ([]renewal.Managed, error) {
	if w.removed {
		return nil, nil
	}
	managed := renewal.Managed{
		Name: name, Names: pki.MustParseNames(w.dns), KeyAlgorithm: pki.ECDSAP256, ReuseKey: w.reuse,
		Issuers: []renewal.NamedIssuer{{Name: w.ca.name, Issuer: &client{w.ca, w.store, w.accounts}}},
	}
	if w.standIn != nil {
		managed.Issuers = append(managed.Issuers, renewal.NamedIssuer{Name: w.standIn.name, Issuer: &client{w.standIn, w.store, w.accounts}})
	}
	for _, p := range w.places {
		target, err := file.New(file.Config{
			Paths: p.paths, Layout: p.layout, CreateDirectories: true,
			Probe: &file.Probe{Address: w.bench.web.address, ServerName: w.sni(p), Patience: 2 * time.Second},
			Hook:  func(step durable.Step, path string, done bool) error { return w.hookAt(p, step, path, done) },
		})
		if err != nil {
			return nil, err
		}
		managed.Deployments = append(managed.Deployments, renewal.Deployment{ID: p.id, Target: target})
	}
	if w.brokered {
		through, err := brokered.New(brokered.Config{Orders: w.store, Courier: syncer})
		if err != nil {
			return nil, err
		}
		managed.Issuers = []renewal.NamedIssuer{{Name: "coordinator", Issuer: through}}
	}
	for i := range managed.Issuers {
		managed.Issuers[i].Limits = w.limits
	}
	return []renewal.Managed{managed}, nil
}
