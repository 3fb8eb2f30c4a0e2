package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) jobsCommand() *cobra.Command {
	return group(&cobra.Command{Use: "jobs", Aliases: []string{"job"}, Short: "What is under way, of every kind", Long: `A job is whatever is under way for the fleet, of every kind in the same words: orders,
renewals, revocations, commands to hosts, mass renewals.`}, p.listJobsCommand())
}

func (p *program) listJobsCommand() *cobra.Command {
	var (
		page listFlags
		jobs client.ListJobsParams
	)
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List orders, renewals, revocations, commands and mass renewals that are under way", Args: sharedcli.NoArgs,
		Long: `Lists what is under way for the fleet, in the same words for every kind: orders at
issuers that the coordinator talks to, renewals by hosts, what somebody asked single
hosts for, and mass renewals. Those orders and renewals that need a person come first
of their kind.

A job is no record of its own, and cannot be changed: "certctl orders", "certctl
certificates", "certctl agents commands" and "certctl renewals" have more of each. A
renewal that is done is no job any more; --ended lists orders, commands and mass
renewals that have ended too, as long as they are kept.

--watch writes a line for every job that comes, changes or goes.`,
		Example: `  certctl jobs list
  certctl jobs list --state needs_person,retrying
  certctl jobs list --kind order --agent u53n5nbgbmcuo7ob --ended
  certctl jobs list --watch`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printList(p, cmd, &page, pagesOf(jobs), listing[resource.Job]{
				header: []string{"KIND", "HOST", "OBJECT", "STATE", "SINCE", "NEXT", "ID", "DETAIL"}, cells: jobCells, gone: "ended",
				id: func(j *resource.Job) string { return string(j.Kind) + "\x00" + j.AgentID + "\x00" + j.ID },
			})
		},
	}
	page.bind(cmd)
	page.watch.bind(cmd, "there is no such job any more")
	choices(cmd, &jobs.Kind, "kind", "only jobs of these kinds", texts(resource.JobKinds)...)
	choices(cmd, &jobs.State, "state", "only jobs in these states", texts(resource.JobStates)...)
	cmd.Flags().StringVar(&jobs.Agent, "agent", "", "only jobs of the agent with this id")
	cmd.Flags().BoolVar(&jobs.Ended, "ended", false, "those that have ended too")
	return cmd
}

func jobCells(j *resource.Job, now time.Time) []string {
	state := string(j.State)
	if j.State == resource.JobNeedsPerson {
		state = "NEEDS A PERSON"
	}
	detail := j.Detail
	if j.Mend != "" {
		detail = strings.TrimPrefix(detail+"; to do: "+j.Mend, "; ")
	}
	return []string{string(j.Kind), j.Hostname, j.Object, state, distance(j.Since, now), distance(j.Next, now), j.ID, detail}
}

// texts are words as texts.
func texts[T ~string](words []T) []string {
	list := make([]string, 0, len(words))
	for _, word := range words {
		list = append(list, string(word))
	}
	return list
}
