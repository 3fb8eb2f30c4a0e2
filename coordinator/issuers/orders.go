package issuers

import "github.com/certctl/certctl/coordinator/orders"

// Orders are the issuers as the engine of orders takes them.
func (r *Registry) Orders() map[string]orders.Issuer {
	list := make(map[string]orders.Issuer, len(r.issuers))
	for name, i := range r.issuers {
		list[name] = orders.Issuer{
			Kind: i.Kind, Connector: i.Connector, Limits: i.Limits, MaxWait: i.MaxWait, MaxValidity: i.MaxValidity,
			Chain: i.Chain, FetchIssuers: i.FetchIssuers, AgentOrders: i.AgentOrders,
		}
	}
	return list
}
