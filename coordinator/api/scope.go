package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/desired"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/selector"
	"github.com/certctl/certctl/shared/wire"
)

// scopeKey is where an operation says what it does for a token that is limited to a
// scope. One that says nothing is refused to it.
const scopeKey = "scope"

// A scopeRule is what an operation does for such a token.
type scopeRule struct {
	doc  string // for the description
	host string // the path parameter of the agent, "" if there is none
	lets bool   // the token may use it
}

// narrows marks an operation whose answer is made from the view of the state alone, which
// is limited to the token's scope.
func narrows(op huma.Operation) huma.Operation {
	return ruled(op, scopeRule{lets: true, doc: "With a token that has a scope the answer tells of the hosts in it, as if there were no others."})
}

// ofHost marks an operation on the one host that a parameter of the path names: there is
// none outside of the token's scope.
func ofHost(op huma.Operation, parameter string) huma.Operation {
	if !strings.Contains(op.Path, "{"+parameter+"}") {
		panic("api: the path of " + op.OperationID + " has no parameter " + parameter)
	}
	return ruled(op, scopeRule{lets: true, host: parameter, doc: "For a token that has a scope there are no hosts outside of it."})
}

// minds marks an operation that looks at the scope of the token itself; doc says what
// comes of it.
func minds(op huma.Operation, doc string) huma.Operation {
	return ruled(op, scopeRule{lets: true, doc: doc})
}

// fleetWide marks an operation that is about more than some hosts, and says why.
func fleetWide(op huma.Operation, why string) huma.Operation {
	return ruled(op, scopeRule{doc: "Refused to a token that has a scope: " + why + "."})
}

// Why operations are about more than some hosts.
const (
	ofTheCA      = "there is one CA for all hosts"
	ofTheIssuers = "accounts at authorities are for all hosts"
	ofTheHistory = "it has facts about all hosts; list-audit tells of those of the scope"
	ofTheCluster = "the cluster is for all hosts"
	ofTheDays    = "the sums of days are of all hosts; list-sync-report tells of those of the scope"
)

func ruled(op huma.Operation, rule scopeRule) huma.Operation {
	if _, twice := op.Metadata[scopeKey]; twice {
		panic("api: it is said twice what " + op.OperationID + " does for a token with a scope")
	}
	op.Metadata[scopeKey] = rule
	return op
}

func ruleOf(op *huma.Operation) scopeRule {
	if rule, ok := op.Metadata[scopeKey].(scopeRule); ok {
		return rule
	}
	return scopeRule{doc: "Refused to a token that has a scope."}
}

// withinScope refuses a request that its token's scope does not let through.
func (s *server) withinScope(ctx huma.Context, token *fleet.APIToken) *Problem {
	if token.Scope.IsZero() {
		return nil
	}
	rule := ruleOf(ctx.Operation())
	if !rule.lets {
		return tooWide(token)
	}
	if rule.host == "" {
		return nil
	}
	if _, ok := s.Node.State().View().Within(token.Scope).Agent(ctx.Param(rule.host)); !ok {
		return noAgent(ctx.Param(rule.host))
	}
	return nil
}

// tooWide is the answer to a token with a scope where none lets it in.
func tooWide(token *fleet.APIToken) *Problem {
	return newProblem(wire.CodeForbidden, "", fmt.Sprintf("the token %q is limited to the hosts %s, and this is about more than those", token.Name, token.Scope),
		"use a token without a scope")
}

// scopeOf is the scope of a request's token.
func scopeOf(ctx context.Context) fleet.Scope { return tokenOf(ctx).Scope }

// viewOf is the state as the request's token may see it.
func (s *server) viewOf(ctx context.Context) *fleet.View {
	return s.Node.State().View().Within(scopeOf(ctx))
}

// checkSelector refuses a selector of hosts outside of a scope.
func checkSelector(scope fleet.Scope, chosen selector.Selector) *Problem {
	if chosen.Within(scope) {
		return nil
	}
	narrower, err := chosen.And(scope.Selector())
	mend := "narrow the selector to " + scope.String()
	if err == nil {
		mend = fmt.Sprintf("narrow the selector, such as to %q", narrower)
	}
	return newProblem(wire.CodeForbidden, "selector", fmt.Sprintf("the selector %q may choose hosts outside of the token's scope, %s", clip(chosen.String()), scope), mend)
}

// parseScope reads label=value texts. Several values of one label are alternatives.
func parseScope(field string, list []string) (fleet.Scope, *Problem) {
	scope := fleet.Scope{}
	for _, text := range list {
		label, value, ok := strings.Cut(text, "=")
		switch {
		case !ok:
			return nil, invalid(field, fmt.Sprintf("%q is not label=value", clip(text)), "write it as env=prod; give it once more for another label, or another value of the same")
		case !validLabelKey(label):
			return nil, invalid(field, fmt.Sprintf("%q is not a label", clip(label)), fmt.Sprintf("use 1 to %d letters, digits and . _ - /", maxLabelKey))
		case !selector.ValidValue(value):
			return nil, invalid(field, fmt.Sprintf("the value of the label %q cannot be written in a selector", label),
				fmt.Sprintf("use at most %d bytes without spaces, commas, brackets, = and !", maxLabelValue))
		}
		if !slices.Contains(scope[label], value) {
			scope[label] = append(scope[label], value)
		}
	}
	for label, values := range scope {
		slices.Sort(values)
		if len(values) > fleet.MaxScopeValues {
			return nil, invalid(field, fmt.Sprintf("%d values of the label %q", len(values), label), fmt.Sprintf("give at most %d", fleet.MaxScopeValues))
		}
	}
	switch {
	case len(scope) == 0:
		return nil, nil
	case len(scope) > fleet.MaxScopeLabels:
		return nil, invalid(field, fmt.Sprintf("%d labels", len(scope)), fmt.Sprintf("give at most %d", fleet.MaxScopeLabels))
	case len(scope.String()) > selector.MaxBytes:
		return nil, invalid(field, "the scope is too long", fmt.Sprintf("it has to fit in a selector, which has at most %d bytes", selector.MaxBytes))
	}
	return scope, nil
}

// scopeTexts are what parseScope reads.
func scopeTexts(scope fleet.Scope) []string {
	var list []string
	for label, values := range scope {
		for _, value := range values {
			list = append(list, label+"="+value)
		}
	}
	slices.Sort(list)
	return list
}

// describeScopes adds to every operation what it does for a token with a scope.
func describeScopes(document *huma.OpenAPI) {
	for _, path := range document.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Put, path.Delete} {
			if op == nil {
				continue
			}
			op.Description = strings.TrimPrefix(op.Description+"\n\n"+ruleOf(op).doc, "\n\n")
		}
	}
}

// assignable refuses what a token with a scope may not make of an assignment. The change
// is then one of what was looked at, or none.
func (s *server) assignable(ctx context.Context, next *desired.Definition, command *fleet.PutAssignment) *Problem {
	scope := scopeOf(ctx)
	if scope.IsZero() {
		return nil
	}
	if refusal := checkSelector(scope, next.Selector); refusal != nil {
		return refusal
	}
	// A name is taken whoever sees what has it.
	var revision uint64
	if stored, ok := s.Node.State().View().Assignment(next.Name); ok {
		if revision = stored.Revision; !scope.Covers(stored.Selector) {
			return notAlone(scope, next.Name)
		}
	}
	return s.lookedAt(ctx, revision, &command.Previous)
}

// lookedAt has a change be one of the revision whose selector was compared with the
// token's scope, or none: one that the request names may be of another selector, which
// this node has not heard of yet.
func (s *server) lookedAt(ctx context.Context, revision uint64, previous **uint64) *Problem {
	if asked := *previous; asked != nil && *asked != revision {
		if p := s.await(ctx, freshness{consistent: true}); p != nil {
			return p
		}
		return newProblem(wire.CodeConflict, "revision", "the assignment was changed in the meantime", "look at it as it is now, and make the change again")
	}
	*previous = &revision
	return nil
}

// notAlone refuses to change an assignment that is for other hosts too.
func notAlone(scope fleet.Scope, name string) *Problem {
	return newProblem(wire.CodeForbidden, "name", fmt.Sprintf("the assignment %s is not for hosts of the token's scope alone, which is %s", clip(name), scope),
		"use another name, or a token without a scope")
}

// noToken is the answer to who asks for a token that there is not.
func noToken(kind string) *Problem {
	p := notFound("there is no "+kind+" token with this id", "list the tokens to see their ids")
	p.Field = "id"
	return p
}
