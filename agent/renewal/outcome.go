package renewal

// Outcome is how a renewal, or one attempt of it, ended.
type Outcome string

// Outcomes.
const (
	OutcomeRenewed          Outcome = "renewed"           // another certificate is in service
	OutcomeOrderFailed      Outcome = "order_failed"      // the issuer gave none
	OutcomeDeploymentFailed Outcome = "deployment_failed" // one place does not serve it
)

// Outcomes are all of them.
var Outcomes = []Outcome{OutcomeRenewed, OutcomeOrderFailed, OutcomeDeploymentFailed}

// count tells whoever counts, after the outcome was stored.
func (e *Engine) count(issuer string, outcome Outcome) {
	if e.cfg.Count != nil {
		e.cfg.Count(issuer, outcome)
	}
}
