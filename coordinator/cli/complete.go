package cli

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
)

const (
	// completionTime is how long a person waits at a line that is being typed.
	completionTime = 2 * time.Second
	// maxCompletions is how many names are asked for, and offered: more than anybody
	// reads. What was typed narrows them where the coordinator can.
	maxCompletions = 500
)

// An offering is what the coordinator has of one kind, each with a description behind a
// tab. args are the arguments before, and part is the beginning of the word, which the
// offering may use to ask for less.
type offering func(ctx context.Context, c *client.Client, args []string, part string) ([]cobra.Completion, error)

// offers makes an offering complete a word. Without a coordinator, a login, or an answer
// in time there is nothing to offer, and nothing to complain of.
func (p *program) offers(of offering) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp
		if p.target.tokenFile == "-" || p.target.caFile == "-" {
			return nil, directive // standard input is the terminal that is typed at
		}
		p.target.moved = nil // nothing comes between a person and the line that is typed
		c, err := p.target.connect()
		if err != nil {
			return nil, directive
		}
		defer c.Close()
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionTime)
		defer cancel()
		list, err := of(ctx, c, args, part)
		if err != nil {
			return nil, directive
		}
		return offered(list, part), directive
	}
}

// offered are those of a list that begin with part, each once.
func offered(list []cobra.Completion, part string) []cobra.Completion {
	var found []cobra.Completion
	seen := make(map[string]bool)
	for _, one := range list {
		word, description, described := strings.Cut(one, "\t")
		word = plain(word)
		if word == "" || seen[word] || !strings.HasPrefix(word, part) {
			continue
		}
		seen[word] = true
		if described {
			word += "\t" + plain(description)
		}
		if found = append(found, word); len(found) == maxCompletions {
			break
		}
	}
	return found
}

// firstArgument offers nothing for the arguments behind the first.
func firstArgument(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, part)
	}
}

// oneOfAll is an offering out of a list of the API. describe makes several of an item.
func oneOfAll[T any](list func(args []string, part string) client.Lister[T], describe func(item *T) []cobra.Completion) offering {
	return func(ctx context.Context, c *client.Client, args []string, part string) ([]cobra.Completion, error) {
		items, _, err := client.Collect(ctx, c, list(args, part), maxCompletions)
		if err != nil {
			return nil, err
		}
		var words []cobra.Completion
		for i := range items {
			words = append(words, describe(&items[i])...)
		}
		return words, nil
	}
}

func described(word, description string) []cobra.Completion {
	return []cobra.Completion{word + "\t" + description}
}

// What the coordinator has.
var (
	agentIDs = oneOfAll(func(_ []string, part string) client.Lister[resource.Agent] { return client.ListAgentsParams{Q: part} },
		func(a *resource.Agent) []cobra.Completion { return described(a.ID, a.Hostname) })
	agentVersions = oneOfAll(func([]string, string) client.Lister[resource.Agent] { return client.ListAgentsParams{} },
		func(a *resource.Agent) []cobra.Completion { return []cobra.Completion{a.Version} })
	agentLabels = oneOfAll(func([]string, string) client.Lister[resource.Agent] { return client.ListAgentsParams{} },
		func(a *resource.Agent) (words []cobra.Completion) {
			for _, key := range slices.Sorted(maps.Keys(a.Labels)) {
				words = append(words, key+"="+a.Labels[key])
			}
			return words
		})
	// certificateNames are those of the agent that is the argument before, if one is.
	certificateNames = oneOfAll(func(args []string, part string) client.Lister[resource.Certificate] {
		list := client.ListCertificatesParams{Q: part}
		if len(args) > 0 {
			list.Agent = args[0]
		}
		return list
	}, func(c *resource.Certificate) []cobra.Completion { return described(c.Name, strings.Join(c.Names, ",")) })
	dnsNames = oneOfAll(func(_ []string, part string) client.Lister[resource.Certificate] {
		return client.ListCertificatesParams{Q: part}
	},
		func(c *resource.Certificate) (words []cobra.Completion) {
			for _, name := range c.Names {
				words = append(words, name+"\t"+c.Name+" on "+c.Hostname)
			}
			return words
		})
	serials = oneOfAll(func([]string, string) client.Lister[resource.Certificate] { return client.ListCertificatesParams{} },
		func(c *resource.Certificate) []cobra.Completion { return described(c.Serial, c.Name+" on "+c.Hostname) })
	fingerprints = oneOfAll(func([]string, string) client.Lister[resource.Certificate] { return client.ListCertificatesParams{} },
		func(c *resource.Certificate) []cobra.Completion {
			return described(c.Fingerprint, c.Name+" on "+c.Hostname)
		})
	// certificateIssuers are the issuers in the configurations of the agents.
	certificateIssuers = oneOfAll(func([]string, string) client.Lister[resource.Certificate] { return client.ListCertificatesParams{} },
		func(c *resource.Certificate) []cobra.Completion { return described(c.Issuer, c.IssuerKind) })
	assignmentNames = oneOfAll(func([]string, string) client.Lister[resource.ListedAssignment] { return client.ListAssignmentsParams{} },
		func(a *resource.ListedAssignment) []cobra.Completion { return described(a.Name, a.Selector) })
	enrollmentTokenIDs = oneOfAll(func([]string, string) client.Lister[resource.EnrollmentToken] {
		return client.ListEnrollmentTokensParams{}
	}, func(t *resource.EnrollmentToken) []cobra.Completion {
		return described(t.ID, strings.TrimSpace(string(t.State)+" "+t.Description))
	})
	apiTokenIDs = oneOfAll(func([]string, string) client.Lister[resource.APIToken] { return client.ListAPITokensParams{} },
		func(t *resource.APIToken) []cobra.Completion {
			return described(t.ID, t.Name+", "+t.Role+", "+string(t.State))
		})
	joinTokenIDs = oneOfAll(func([]string, string) client.Lister[resource.JoinToken] { return client.ListJoinTokensParams{} },
		func(t *resource.JoinToken) []cobra.Completion {
			return described(t.ID, strings.TrimSpace(string(t.State)+" "+t.Description))
		})
	newestEvents = func([]string, string) client.Lister[resource.Event] { return client.ListAuditParams{Scope: "all"} }
	eventKinds   = oneOfAll(newestEvents, func(e *resource.Event) []cobra.Completion { return []cobra.Completion{e.Kind} })
	auditNumbers = oneOfAll(func([]string, string) client.Lister[resource.Event] { return client.ListAuditParams{} },
		func(e *resource.Event) []cobra.Completion {
			return described(strconv.FormatUint(e.Audit, 10), e.Kind+" "+e.Object)
		})
	eventActors  = oneOfAll(newestEvents, func(e *resource.Event) []cobra.Completion { return []cobra.Completion{e.Actor} })
	eventObjects = oneOfAll(newestEvents, func(e *resource.Event) []cobra.Completion { return []cobra.Completion{e.Object} })
)

// orderIDs are those of the orders that a list chooses.
func orderIDs(list client.ListOrdersParams) offering {
	return oneOfAll(func(_ []string, part string) client.Lister[resource.Order] {
		list.ID = part
		return list
	}, func(o *resource.Order) []cobra.Completion {
		return described(o.ID, strings.Join([]string{string(o.Stage), o.Issuer, o.Certificate, o.Hostname}, " "))
	})
}

// issuerNames are the accounts that the coordinator orders at.
func issuerNames(ctx context.Context, c *client.Client, _ []string, _ string) (words []cobra.Completion, err error) {
	issuers, err := itemsOf(c.ListIssuers(ctx))
	for _, one := range issuers {
		words = append(words, one.Name+"\t"+strings.TrimSpace(one.Kind+" "+string(one.State)))
	}
	return words, err
}

// anyIssuers are those of the hosts and those of the coordinator.
func anyIssuers(ctx context.Context, c *client.Client, args []string, part string) ([]cobra.Completion, error) {
	words, err := certificateIssuers(ctx, c, args, part)
	if err != nil {
		return nil, err
	}
	more, err := issuerNames(ctx, c, args, part)
	if err != nil {
		return words, nil //nolint:nilerr // there is no leader, and these are what there is
	}
	return append(words, more...), nil
}

func renewalsIDs(ctx context.Context, c *client.Client, _ []string, _ string) (words []cobra.Completion, err error) {
	list, err := itemsOf(c.ListRenewals(ctx))
	for i := range list {
		words = append(words, list[i].ID+"\t"+strings.TrimSpace(list[i].State+" "+list[i].Selector+" "+list[i].Reason))
	}
	return words, err
}

// nodeIDs are the members' ids, and of which address they are.
func nodeIDs(ctx context.Context, c *client.Client, _ []string, _ string) (words []cobra.Completion, err error) {
	members, err := c.ListMembers(ctx)
	if err != nil {
		return nil, err
	}
	for i := range members.Items {
		words = append(words, members.Items[i].ID+"\t"+members.Items[i].Address)
	}
	return words, nil
}

func (p *program) completeAgents() cobra.CompletionFunc { return firstArgument(p.offers(agentIDs)) }
func (p *program) completeAssignments() cobra.CompletionFunc {
	return firstArgument(p.offers(assignmentNames))
}
func (p *program) completeIssuers() cobra.CompletionFunc { return firstArgument(p.offers(issuerNames)) }
func (p *program) completeNodes() cobra.CompletionFunc   { return firstArgument(p.offers(nodeIDs)) }
func (p *program) completeRenewals() cobra.CompletionFunc {
	return firstArgument(p.offers(renewalsIDs))
}
func (p *program) completeOrders(list client.ListOrdersParams) cobra.CompletionFunc {
	return firstArgument(p.offers(orderIDs(list)))
}

// completeCertificates offers agents, then the certificates of the chosen one.
func (p *program) completeCertificates(cmd *cobra.Command, args []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return p.offers(agentIDs)(cmd, args, part)
	case 1:
		return p.offers(certificateNames)(cmd, args, part)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeManyAssignments offers those that were not named yet.
func (p *program) completeManyAssignments(cmd *cobra.Command, args []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
	words, directive := p.offers(assignmentNames)(cmd, args, part)
	return slices.DeleteFunc(words, func(word cobra.Completion) bool {
		name, _, _ := strings.Cut(word, "\t")
		return slices.Contains(args, name)
	}), directive
}

// completeFiles has the shell offer files.
func completeFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// completeWords offers words in the order in which they stand.
func completeWords(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
}

// inList completes the last word of several that are separated by commas.
func inList(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
		end := strings.LastIndexByte(part, ',') + 1
		before, last := part[:end], part[end:]
		words, directive := complete(cmd, args, last)
		had := strings.Split(before, ",")
		var list []cobra.Completion
		for _, word := range words {
			if name, _, _ := strings.Cut(word, "\t"); strings.HasPrefix(name, last) && !slices.Contains(had, name) {
				list = append(list, before+word)
			}
		}
		return list, directive
	}
}

// completeServers offers the servers of the contexts.
func completeServers(*cobra.Command, []string, string) (words []cobra.Completion, _ cobra.ShellCompDirective) {
	file, err := readContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
		one := file.Contexts[name]
		for _, server := range one.servers() {
			words = append(words, server+"\t"+name)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
