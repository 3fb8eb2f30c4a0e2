package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/certctl/certctl/coordinator/client"
)

// sameName is how many hosts are looked through for one of a name.
const sameName = 500

// agentID is the id of the agent that a text names: by its id, or by the name of its
// host, if one active host has that name. A text that names none is taken for an id, so
// that the coordinator says what is wrong with it. What looks like an id costs no question.
func agentID(ctx context.Context, c *client.Client, text string) (string, error) {
	if text == "" || looksLikeAgentID(text) {
		return text, nil
	}
	agents, _, err := client.Collect(ctx, c, client.ListAgentsParams{Q: text, State: "active"}, sameName)
	if err != nil {
		return "", err
	}
	var named []string
	for i := range agents {
		a := &agents[i]
		if a.ID == text {
			return text, nil
		}
		if strings.EqualFold(a.Hostname, text) {
			named = append(named, a.ID)
		}
	}
	switch len(named) {
	case 0:
		return text, nil
	case 1:
		return named[0], nil
	default:
		return "", fmt.Errorf("%d active hosts have the name %s: give the id of one, %s", len(named), text, strings.Join(named, " or "))
	}
}

// looksLikeAgentID goes by the form in which coordinators make them.
func looksLikeAgentID(text string) bool {
	return len(text) == 16 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
