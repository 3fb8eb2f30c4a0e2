package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// NoArgs is cobra.NoArgs for a verb that has no verbs below it: what stands
// there too much is no unknown command.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q takes no arguments, such as %q; --help shows its flags", cmd.CommandPath(), args[0])
	}
	return nil
}

// ExactArgs is cobra.ExactArgs for a verb whose usage names its arguments.
func ExactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		names := strings.Join(strings.Fields(cmd.Use)[1:n+1], " ")
		if len(args) > n {
			return fmt.Errorf("%q takes %s, and %q is too much; --help shows examples", cmd.CommandPath(), names, args[n])
		}
		return fmt.Errorf("%q takes %s; --help shows examples", cmd.CommandPath(), names)
	}
}

// numbers says in words what the types of flags take that strconv reads.
var numbers = map[string]string{
	"bool":   "true or false",
	"int":    "a whole number",
	"uint32": "a whole number, 0 or more",
}

// FlagErrors makes root and the verbs below it name a flag with a bad value as
// the checks of the verbs do, and say what was expected.
func FlagErrors(root *cobra.Command) {
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		bad, ok := errors.AsType[*pflag.InvalidValueError](err)
		if !ok {
			return err
		}
		flag, cause := bad.GetFlag(), bad.Unwrap()
		if _, read := errors.AsType[*strconv.NumError](cause); read {
			if want, known := numbers[flag.Value.Type()]; known {
				cause = errors.New("expected " + want)
			}
		}
		return fmt.Errorf("flag --%s %q: %w", flag.Name, bad.GetValue(), cause)
	})
}
