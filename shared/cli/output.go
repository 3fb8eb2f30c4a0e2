package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Output is how a verb writes what it shows: as a table or text for people, or
// as JSON. It is the value of the flag --output of all programs.
type Output string

// The values of --output. "text" is another word for the first.
const (
	OutputTable Output = "table"
	OutputJSON  Output = "json"
)

// Bind adds the flag to flags, which are cmd's own or those that cmd's verbs
// share.
func (o *Output) Bind(cmd *cobra.Command, flags *pflag.FlagSet) {
	*o = OutputTable
	flags.VarP(o, "output", "o", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{string(OutputTable), string(OutputJSON)}, cobra.ShellCompDirectiveNoFileComp))
}

// Set implements pflag.Value.
func (o *Output) Set(text string) error {
	switch text {
	case "table", "text":
		*o = OutputTable
	case "json":
		*o = OutputJSON
	default:
		return errors.New("expected table or json")
	}
	return nil
}

// String implements pflag.Value.
func (o *Output) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *Output) Type() string { return "string" }

// JSON reports whether JSON was asked for.
func (o *Output) JSON() bool { return *o == OutputJSON }
