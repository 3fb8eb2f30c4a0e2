package fleet

import (
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// commandsFor is how long a finished command of an agent is kept.
const commandsFor = 30 * 24 * time.Hour

// CommandState is where a command for an agent stands.
type CommandState string

// States of a command. All but the first two are final.
const (
	CommandOpen      CommandState = "open"
	CommandAccepted  CommandState = "accepted" // stored on the host
	CommandDone      CommandState = "done"
	CommandFailed    CommandState = "failed"
	CommandRefused   CommandState = "refused"
	CommandCancelled CommandState = "cancelled"
)

// Final reports whether the command will not change any more.
func (s CommandState) Final() bool { return s != CommandOpen && s != CommandAccepted }

// AgentCommand is one act that an agent was asked for: see wire.Command. Those
// of a campaign are here only if they ended without a new certificate.
type AgentCommand struct {
	Agent       string           `cbor:"1,keyasint"`
	ID          string           `cbor:"2,keyasint"`
	Kind        wire.CommandKind `cbor:"3,keyasint"`
	Certificate string           `cbor:"4,keyasint"`
	Serial      string           `cbor:"5,keyasint,omitempty"`
	Reason      int              `cbor:"6,keyasint,omitempty"`
	Campaign    string           `cbor:"7,keyasint,omitempty"`
	State       CommandState     `cbor:"8,keyasint"`
	Detail      string           `cbor:"9,keyasint,omitempty"`
	CreatedAt   time.Time        `cbor:"10,keyasint"`
	CreatedBy   string           `cbor:"11,keyasint,omitempty"`
	DoneAt      time.Time        `cbor:"12,keyasint"` // zero until final
	ModifyIndex uint64           `cbor:"13,keyasint"`
	RevokedAt   time.Time        `cbor:"14,keyasint,omitzero"` // see wire.Command
}

// CommandAgent asks an agent for an act. An id that the agent has already
// changes nothing.
//
// Codes: CodeInvalid, CodeNotFound, CodeAgentRetired, CodeOverloaded.
type CommandAgent struct {
	Actor       string           `cbor:"1,keyasint,omitempty"`
	Agent       string           `cbor:"2,keyasint"`
	ID          string           `cbor:"3,keyasint"`
	Kind        wire.CommandKind `cbor:"4,keyasint"`
	Certificate string           `cbor:"5,keyasint"`
	Serial      string           `cbor:"6,keyasint,omitempty"`
	Reason      int              `cbor:"7,keyasint,omitempty"`
	// RevokedAt is set to renew what was revoked already.
	RevokedAt time.Time `cbor:"8,keyasint,omitzero"`
}

// CommandReport is an agent's answer to a command. Of a command of a campaign
// its proposer says which certificate it is about.
type CommandReport struct {
	ID          string            `cbor:"1,keyasint"`
	State       wire.CommandState `cbor:"2,keyasint"`
	Detail      string            `cbor:"3,keyasint,omitempty"`
	At          time.Time         `cbor:"4,keyasint"`
	Campaign    string            `cbor:"5,keyasint,omitempty"`
	Certificate string            `cbor:"6,keyasint,omitempty"`
}

func (CommandAgent) commandType() Type { return TypeCommandAgent }

func agentCommandIndexes() []index {
	return []index{
		{name: indexID, keys: func(r any) [][]byte { a := r.(*AgentCommand); return only(key(a.Agent, a.ID)) }},
		{name: indexCampaign, keys: func(r any) [][]byte {
			a := r.(*AgentCommand)
			if a.Campaign == "" {
				return nil
			}
			return only(key(a.Campaign, a.Agent, a.ID))
		}},
		{name: indexDone, keys: func(r any) [][]byte {
			a := r.(*AgentCommand)
			if !a.State.Final() {
				return nil
			}
			return only(key(a.DoneAt, a.Agent, a.ID))
		}},
	}
}

func commandAgent(c *change, p *CommandAgent) Result {
	command := wire.Command{ID: p.ID, Kind: p.Kind, Certificate: p.Certificate, Serial: p.Serial, Reason: p.Reason, RevokedAt: p.RevokedAt}
	if problem := command.Validate(); problem != nil || p.Kind != wire.CommandRenew && p.Kind != wire.CommandRevoke {
		return refuse(wire.CodeInvalid, "command", "an agent would not take this command", "")
	}
	agent := find[Agent](c, TableAgents, indexID, key(p.Agent))
	switch {
	case agent == nil:
		return refuse(wire.CodeNotFound, "agent", "there is no agent with this id", "list the agents to see their ids")
	case agent.State == AgentRetired:
		return refuse(wire.CodeAgentRetired, "agent", "this agent was retired", "name an agent that is active")
	case find[AgentCommand](c, TableAgentCommands, indexID, key(p.Agent, p.ID)) != nil:
		return Result{}
	}
	waiting := 0
	for records := c.scan(TableAgentCommands, indexID, key(p.Agent)); ; {
		other, ok := records.Next().(*AgentCommand)
		if !ok {
			break
		}
		if other.State.Final() {
			continue
		}
		if waiting++; waiting >= wire.MaxCommands {
			return refuse(wire.CodeOverloaded, "agent", "this agent has as many open commands as it takes", "wait until some of them are done")
		}
	}
	c.insert(TableAgentCommands, &AgentCommand{
		Agent: p.Agent, ID: p.ID, Kind: p.Kind, Certificate: p.Certificate, Serial: p.Serial, Reason: p.Reason, RevokedAt: p.RevokedAt,
		State: CommandOpen, CreatedAt: c.at, CreatedBy: p.Actor, ModifyIndex: c.index,
	})
	detail := map[string]any{"command_id": p.ID, "kind": p.Kind}
	if p.Serial != "" {
		detail["serial"] = p.Serial
	}
	if p.Kind == wire.CommandRevoke || !p.RevokedAt.IsZero() {
		detail["reason"] = p.Reason
	}
	c.audit(Fact{Kind: KindCommandCreated, Actor: p.Actor, Object: p.Certificate, Agent: p.Agent}, detail)
	return Result{}
}

// commands stores what became of commands. What is known already, and what is
// not asked any more, changes nothing.
func (s *agentSync) commands(reports []CommandReport) {
	for i := range reports {
		report := &reports[i]
		state := CommandState(report.State)
		stored := find[AgentCommand](s.change, TableAgentCommands, indexID, key(s.agent.ID, report.ID))
		switch {
		case stored != nil && (stored.State.Final() || stored.State == state):
			continue
		case stored == nil && (report.Campaign == "" || !state.Final() || !s.targeted(report)):
			continue
		}
		next := &AgentCommand{Agent: s.agent.ID, ID: report.ID, Kind: wire.CommandRenew, Certificate: report.Certificate, Campaign: report.Campaign, CreatedAt: s.at}
		if stored != nil {
			next = edit(stored)
		}
		next.State, next.Detail, next.ModifyIndex = state, report.Detail, s.index
		if state.Final() {
			next.DoneAt = s.at
			s.event(Fact{Kind: KindCommandFinished, Actor: "agent:" + s.agent.ID, Object: next.Certificate, Agent: s.agent.ID}, map[string]any{
				"command_id": next.ID, "kind": next.Kind, "state": state, "detail": next.Detail,
			})
		}
		if stored == nil {
			s.insert(TableAgentCommands, next)
		} else {
			s.put(TableAgentCommands, next)
		}
	}
}

// targeted reports whether a campaign still waits for a certificate: a report
// about one that was replaced need not be kept.
func (s *agentSync) targeted(report *CommandReport) bool {
	campaign := find[Campaign](s.change, TableCampaigns, indexID, key(report.Campaign))
	row := find[Certificate](s.change, TableCertificates, indexID, key(s.agent.ID, report.Certificate))
	return campaign != nil && row != nil && campaign.CommandID(s.agent.ID, row.Name) == report.ID && !campaign.Replaced(row)
}

// AgentCommand looks a command of an agent up.
func (v *View) AgentCommand(agent, id string) (*AgentCommand, bool) {
	return get[AgentCommand](v, TableAgentCommands, indexID, key(agent, id))
}

// AgentCommands lists the commands of an agent by id, finished ones of the last
// weeks too.
func (v *View) AgentCommands(agent string) []*AgentCommand {
	return collect[AgentCommand](v.scan(TableAgentCommands, indexID, key(agent)))
}

// CampaignCommands lists the commands of a campaign that ended without a new
// certificate, up to limit.
func (v *View) CampaignCommands(campaign string, limit int) []*AgentCommand {
	records := v.scan(TableAgentCommands, indexCampaign, key(campaign))
	var list []*AgentCommand
	for len(list) < limit {
		command, ok := records.Next().(*AgentCommand)
		if !ok {
			break
		}
		list = append(list, command)
	}
	return list
}
