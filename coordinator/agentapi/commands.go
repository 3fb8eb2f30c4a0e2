package agentapi

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/selector"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// campaignLead is how many syncs ahead of its turn a host is told to renew:
	// it keeps the time itself, and a campaign that is cancelled has not been
	// handed out whole.
	campaignLead = 2
	// maxRemembered bounds the agents whose next turn is remembered.
	maxRemembered = 500_000
)

// commands are what an agent is asked to do now: those for it alone first, then
// those of campaigns by the time of their turn.
func (s *Service) commands(view *fleet.View, agentID string) []wire.Command {
	var list []wire.Command
	for _, command := range view.AgentCommands(agentID) {
		if command.State.Final() || len(list) == wire.MaxCommands {
			continue
		}
		list = append(list, wire.Command{
			ID: command.ID, Kind: command.Kind, Certificate: command.Certificate,
			Serial: command.Serial, Reason: command.Reason, RevokedAt: command.RevokedAt.UTC(),
		})
	}
	agent, ok := view.Agent(agentID)
	if !ok || view.Rows(fleet.TableCampaigns) == 0 {
		return list
	}
	turns := s.campaigns.turns(view, agent, s.now(), campaignLead*s.Period())
	return append(list, turns[:min(len(turns), wire.MaxCommands-len(list))]...)
}

// campaigns are the running campaigns, ready to be matched. The zero value is
// ready.
type campaigns struct {
	mu      sync.Mutex
	version uint64
	all     []campaign
	next    map[string]nextTurn
}

type campaign struct {
	*fleet.Campaign
	selector selector.Selector
}

// nextTurn is when the next certificate of an agent has its turn, as long as
// neither the campaigns nor the agent's record have changed.
type nextTurn struct {
	version, agent uint64
	at             time.Time // zero: none
}

// turns are the commands of an agent whose turn comes within lead.
func (c *campaigns) turns(view *fleet.View, agent *fleet.Agent, now time.Time, lead time.Duration) []wire.Command {
	c.mu.Lock()
	version := view.Version(fleet.TableCampaigns)
	if version != c.version || c.next == nil || len(c.next) > maxRemembered {
		c.version, c.all, c.next = version, parseCampaigns(view), map[string]nextTurn{}
	}
	all, known := c.all, c.next[agent.ID]
	c.mu.Unlock()
	if known.version == version && known.agent == agent.ModifyIndex && (known.at.IsZero() || known.at.After(now.Add(lead))) {
		return nil
	}

	list := waiting(view, agent, all, now)
	next := nextTurn{version: version, agent: agent.ModifyIndex}
	if len(list) > 0 {
		next.at = list[0].NotBefore
	}
	c.mu.Lock()
	if c.version == version {
		c.next[agent.ID] = next
	}
	c.mu.Unlock()
	due := slices.IndexFunc(list, func(command wire.Command) bool { return command.NotBefore.After(now.Add(lead)) })
	if due < 0 {
		return list
	}
	return list[:due]
}

// waiting are all commands of campaigns that an agent has still to be given, by
// the time of their turn.
func waiting(view *fleet.View, agent *fleet.Agent, all []campaign, now time.Time) []wire.Command {
	var list []wire.Command
	for _, campaign := range all {
		if !campaign.Running(now) || !campaign.selector.Matches(agent.Labels) {
			continue
		}
		for _, row := range view.CertificatesOf(agent.ID) {
			id := campaign.CommandID(agent.ID, row.Name)
			if !campaign.Wants(row) {
				continue
			}
			if _, ended := view.AgentCommand(agent.ID, id); ended {
				continue
			}
			list = append(list, wire.Command{
				ID: id, Kind: wire.CommandRenew, Certificate: row.Name, Serial: row.Columns.Serial, NotBefore: campaign.Due(agent.ID, row.Name).UTC(),
			})
		}
	}
	slices.SortFunc(list, func(a, b wire.Command) int {
		return cmp.Or(a.NotBefore.Compare(b.NotBefore), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func parseCampaigns(view *fleet.View) []campaign {
	var all []campaign
	for _, stored := range view.Campaigns() {
		chosen, err := selector.Parse(stored.Selector)
		if err != nil {
			continue // of a version that knows more; it is nobody's here
		}
		all = append(all, campaign{stored, chosen})
	}
	return all
}

// commandReports are the answers to commands that the state does not know.
func commandReports(view *fleet.View, agentID string, said []wire.CommandResult) []fleet.CommandReport {
	var news []fleet.CommandReport
	for _, result := range said {
		report := fleet.CommandReport{ID: result.ID, State: result.State, Detail: result.Detail, At: result.At}
		if stored, ok := view.AgentCommand(agentID, result.ID); ok {
			if !stored.State.Final() && stored.State != fleet.CommandState(result.State) {
				news = append(news, report)
			}
			continue
		}
		id, _, _ := strings.Cut(result.ID, "-")
		campaign, ok := view.Campaign(id)
		if !ok || result.State == wire.CommandAccepted {
			continue
		}
		for _, row := range view.CertificatesOf(agentID) {
			if campaign.CommandID(agentID, row.Name) == result.ID && !campaign.Replaced(row) {
				report.Campaign, report.Certificate = campaign.ID, row.Name
				news = append(news, report)
			}
		}
	}
	return news
}
