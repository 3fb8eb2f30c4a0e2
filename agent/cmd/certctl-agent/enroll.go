package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/wire"
)

const maxTokenFile = 4 << 10

func (a *agentCommand) enrollCommand() *cobra.Command {
	var (
		servers          []string
		token, tokenFile string
		replace          bool
		output           cli.Output
	)
	cmd := &cobra.Command{
		Use:   "enroll --server URL --token-file FILE",
		Short: "Enrol this host with a coordinator",
		Long: `Exchanges an enrolment token for this agent's identity. The token also says which
CA the coordinator must show, so that nothing else needs to be trusted.

One node of a cluster is enough: the host learns of the others. With several, the
enrolment succeeds while one of them does not answer, and these addresses are
kept for a time when none of the nodes that the host has learnt of does.

Works while the agent runs and while it does not. If the agent that answers on
control.socket keeps its state elsewhere than in state_dir, nothing is done. Repeating it after a lost
answer, with the same token, is safe. "certctl token create" makes tokens.`,
		Example: `  certctl-agent enroll --server https://certctl.example.com:8443 --token-file token
  ssh admin@host cat token | certctl-agent enroll --server https://certctl.example.com:8443 --token-file -
  certctl-agent enroll --server https://certctl.example.com:8443 --token cte1...`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			parsed, err := readToken(token, tokenFile, cmd.InOrStdin())
			if err != nil {
				return err
			}
			done, err := a.enroll(cmd.Context(), control.EnrollRequest{Servers: servers, Token: parsed, Replace: replace})
			if err != nil {
				return err
			}
			return output.Write(cmd.OutOrStdout(), done, func(out io.Writer) error { return enrolledText(out, done) })
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&servers, "server", nil, "URL of the coordinator, such as https://certctl.example.com:8443; may be repeated for the nodes of a cluster")
	flags.StringVar(&token, "token", "", "enrolment token; others on this host can see it, prefer --token-file")
	flags.StringVar(&tokenFile, "token-file", "", "file with the enrolment token; - is standard input")
	flags.BoolVar(&replace, "replace", false, "give up the identity that this host has")
	output.Bind(cmd, cmd.Flags())
	_ = cmd.MarkFlagRequired("server")
	cmd.MarkFlagsMutuallyExclusive("token", "token-file")
	cmd.MarkFlagsOneRequired("token", "token-file")
	return cmd
}

func enrolledText(out io.Writer, done *control.Enrollment) error {
	allowed := "no names: this agent can only use issuers of its own configuration"
	if len(done.NamePatterns) > 0 {
		allowed = strings.Join(done.NamePatterns, ", ")
	}
	_, err := fmt.Fprintf(out, "enrolled as %s with %s\nit may ask the coordinator for: %s\n", done.AgentID, strings.Join(done.Servers, ", "), allowed)
	if err == nil && done.Replaced != "" {
		_, err = fmt.Fprintf(out, "the identity that it replaces is still valid there: end it with \"certctl agents retire %s\"\n", done.Replaced)
	}
	return err
}

func readToken(text, file string, stdin io.Reader) (wire.EnrollmentToken, error) {
	if file != "" {
		in := stdin
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return wire.EnrollmentToken{}, fmt.Errorf("flag --token-file: %w", err)
			}
			defer f.Close()
			in = f
		}
		data, err := io.ReadAll(io.LimitReader(in, maxTokenFile))
		if err != nil {
			return wire.EnrollmentToken{}, fmt.Errorf("flag --token-file: %w", err)
		}
		text = string(data)
	}
	return wire.ParseEnrollmentToken(text)
}

// enroll asks the running agent, or does it itself when none runs.
func (a *agentCommand) enroll(ctx context.Context, request control.EnrollRequest) (*control.Enrollment, error) {
	client, err := a.dialOwn(ctx)
	if err == nil {
		defer client.Close()
		return client.Enroll(ctx, request)
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return nil, err
	}
	s, _, err := a.load()
	if err != nil {
		return nil, err
	}
	log, _, err := cli.Logger(os.Stderr, "warn", "text")
	if err != nil {
		return nil, err
	}
	state, err := openState(s, log)
	if err != nil {
		return nil, err
	}
	defer state.close(log)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return enrollWith(ctx, s, state, request, log)
}
