package cli

import (
	"io"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// call runs a small command line and returns what --output became.
func call(args ...string) (Output, error) {
	var output Output
	root := &cobra.Command{Use: "program", SilenceErrors: true, SilenceUsage: true}
	FlagErrors(root)
	verb := &cobra.Command{Use: "verb", Args: NoArgs, Run: func(*cobra.Command, []string) {}}
	verb.Flags().Uint32("uses", 1, "")
	verb.Flags().Int("limit", 1, "")
	verb.Flags().Bool("all", false, "")
	output.Bind(verb, verb.Flags())
	root.AddCommand(verb)
	root.SetArgs(append([]string{"verb"}, args...))
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	err := root.Execute()
	return output, err
}

func TestOutput(t *testing.T) {
	for given, want := range map[string]Output{"table": OutputTable, "text": OutputTable, "json": OutputJSON, "yaml": OutputYAML, "csv": OutputCSV} {
		got, err := call("--output", given)
		require.NoError(t, err)
		assert.Equal(t, want, got)
		got, err = call("-o", given)
		require.NoError(t, err)
		assert.Equal(t, want, got)
		assert.Equal(t, want == OutputTable, got.Human())
	}
	got, err := call()
	require.NoError(t, err)
	assert.Equal(t, OutputTable, got)
}

func TestBadWords(t *testing.T) {
	for want, args := range map[string][]string{
		`flag --output "xml": expected table, json, yaml or csv`:                   {"--output", "xml"},
		`flag --uses "-1": expected a whole number, 0 or more`:                     {"--uses", "-1"},
		`flag --limit "x": expected a whole number`:                                {"--limit", "x"},
		`flag --all "x": expected true or false`:                                   {"--all=x"},
		`unknown flag: --frobnicate`:                                               {"--frobnicate"},
		`"program verb" takes no arguments, such as "a.b"; --help shows its flags`: {"a.b"},
	} {
		_, err := call(args...)
		assert.EqualError(t, err, want)
	}
}

func TestExactArgs(t *testing.T) {
	root := &cobra.Command{Use: "program"}
	verb := &cobra.Command{Use: "show AGENT NAME [flags]", Args: ExactArgs(2)}
	root.AddCommand(verb)
	require.NoError(t, verb.Args(verb, []string{"web1", "www"}))
	require.EqualError(t, verb.Args(verb, nil), `"program show" takes AGENT NAME; --help shows examples`)
	require.EqualError(t, verb.Args(verb, []string{"www"}), `"program show" takes AGENT NAME; --help shows examples`)
	require.EqualError(t, verb.Args(verb, []string{"web1", "www", "x"}), `"program show" takes AGENT NAME, and "x" is too much; --help shows examples`)
}
