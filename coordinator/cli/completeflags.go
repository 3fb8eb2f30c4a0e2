package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagCompletions say how the shell completes the values of flags, by the flag's name, or
// by command and flag where the name means something else there. A flag whose words are
// fixed has its completion from choice or choices.
func (p *program) flagCompletions() map[string]cobra.CompletionFunc {
	agents, issuers, labels := p.offers(agentIDs), p.offers(anyIssuers), p.offers(agentLabels)
	short, long := completeWords("15m", "1h", "12h", "1d", "7d"), completeWords("1h", "1d", "7d", "30d", "90d", "365d")
	return map[string]cobra.CompletionFunc{
		// names that the coordinator has
		"agent": agents, "label": labels, "selector": labels, "issuer": issuers,
		"agent-version": p.offers(agentVersions), "certificate": p.offers(certificateNames), "serial": p.offers(serials), "fingerprint": p.offers(fingerprints),
		"kind": inList(p.offers(eventKinds)), "actor": p.offers(eventActors), "object": p.offers(eventObjects),
		"certctl certificates list --name": p.offers(dnsNames),
		"certctl orders list --issuer":     p.offers(issuerNames),
		"server":                           completeServers,
		"nodes":                            inList(p.offers(nodeIDs)),
		"from":                             p.offers(auditNumbers),

		// lengths of time, and moments
		"ttl": short, "over": short, "certctl api-token create --ttl": long, "certctl api-token create --scope": labels, "grace": completeWords("0", "1h", "1d", "7d"),
		"safe-within": long, "expires-within": long, "since": long, "until": long, "before": long,

		// files
		"token-file": completeFiles, "ca-file": completeFiles, "file": completeFiles, "passphrase-file": completeFiles, "identity-file": completeFiles,

		// numbers, and what nobody but the person knows
		"limit": completeWords("10", "50", "200", "1000"), "uses": completeWords("1", "10", "100", "0"),
		"days":  completeWords("7", "14", "30", "90", "365"),
		"query": cobra.NoFileCompletions, "name": cobra.NoFileCompletions, "names": cobra.NoFileCompletions, "name-pattern": cobra.NoFileCompletions,
		"description": cobra.NoFileCompletions, "reason": cobra.NoFileCompletions, "note": cobra.NoFileCompletions,
		"against": cobra.NoFileCompletions, "adopt": cobra.NoFileCompletions, "encrypt-to": cobra.NoFileCompletions,
	}
}

// completeAll gives cmd and the commands below it the completions of their flags, and has
// the shell offer no files where a command takes no arguments.
func completeAll(cmd *cobra.Command, flags map[string]cobra.CompletionFunc) {
	for _, sub := range cmd.Commands() {
		completeAll(sub, flags)
	}
	if cmd.ValidArgsFunction == nil && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	each := func(flag *pflag.Flag) {
		if _, there := cmd.GetFlagCompletionFunc(flag.Name); there {
			return
		}
		complete, ok := flags[cmd.CommandPath()+" --"+flag.Name]
		if !ok {
			complete, ok = flags[flag.Name]
		}
		if ok {
			_ = cmd.RegisterFlagCompletionFunc(flag.Name, complete) // fails for one that is there, or no flag
		}
	}
	cmd.LocalFlags().VisitAll(each)
}
