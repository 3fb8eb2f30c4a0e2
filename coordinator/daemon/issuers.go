package daemon

import (
	"github.com/certctl/certctl/coordinator/issuers"
)

// openIssuers makes what tells operators of the accounts at authorities.
func (d *Daemon) openIssuers() (*issuers.Service, error) {
	return issuers.NewService(issuers.Config{
		Registry: d.issuers, Leads: d.node.IsLeader, Log: d.log.With("part", "issuers"),
		Standing: func() (list []issuers.Standing) {
			for _, i := range d.issuers.All() {
				list = append(list, issuers.Standing{Name: i.Name, Kind: i.Kind, Configured: true, Leading: true})
			}
			return list
		},
		Resume: func(string) error { return nil },
		Open:   func() map[string]int { return nil },
	})
}
