package commandlines

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSplit(t *testing.T) {
	for text, want := range map[string]string{
		`certctl a --b 'c d' "e f"`:                            "certctl|a|--b|c d|e f",
		`certctl a > file.json`:                                "certctl|a",
		`certctl a 2> /dev/null; certctl b`:                    "certctl|a;certctl|b",
		`certctl a | ssh c2 certctl-coordinator join && x y`:   "certctl|a;ssh|c2|certctl-coordinator|join;x|y",
		`X=$(certctl a) certctl b # a remark`:                  "X=$;certctl|a;certctl|b",
		`# nothing`:                                            "",
		`certctl a "not closed`:                                "certctl|a|not closed",
		`CERTCTL_CA_SEAL_KEY_FILE=/root/k certctl-coordinator`: "CERTCTL_CA_SEAL_KEY_FILE=/root/k|certctl-coordinator",
	} {
		var got []string
		for _, words := range split(text) {
			got = append(got, strings.Join(words, "|"))
		}
		assert.Equal(t, want, strings.Join(got, ";"), text)
	}
}

func texts(lines []Line) (list []string) {
	for _, line := range lines {
		how := " (named)"
		if line.Whole {
			how = ""
		}
		list = append(list, line.String()+how)
	}
	return list
}

func TestLinesOfADocument(t *testing.T) {
	assert.Equal(t, []string{
		"x.md:1: certctl a ID (named)", "x.md:1: certctl-agent b (named)", "x.md:3: certctl login --server u --token-file t", "x.md:8: certctl c", "x.md:10: certctl-agent.exe d",
	}, texts(inDocument("x.md", "See `certctl a ID`, \"certctl-agent b\" and certctl.\n```sh\n$ sudo certctl login --server u \\\n      --token-file t\ncertctlish a\n```\n\n    X=1 certctl c  # remark\n> ```\ncertctl-agent.exe d\n> ```\n")))
}

func TestLinesOfASource(t *testing.T) {
	lines, err := inSource("x.go", []byte("package x\n\n// certctl no\nvar a = `Text\n  certctl b c\n  certctl d \\\n    --e\n`\n\nvar f = \"run \\\"certctl g\\\", not \\\"certctlish\\\"\" + \"  certctl h \"\n"))
	require.NoError(t, err)
	assert.Equal(t, []string{"x.go:5: certctl b c", "x.go:6: certctl d --e", "x.go:10: certctl g (named)", "x.go:10: certctl h (named)"}, texts(lines))
}

// commandsOf are those of an example.
func commandsOf() *cobra.Command {
	root := &cobra.Command{Use: "certctl", SilenceErrors: true, SilenceUsage: true}
	agents := &cobra.Command{Use: "agents"}
	list := &cobra.Command{Use: "list", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }}
	list.Flags().Int("limit", 1, "")
	show := &cobra.Command{Use: "show ID", Args: cobra.ExactArgs(1), RunE: list.RunE}
	show.Flags().String("as", "", "")
	if err := show.MarkFlagRequired("as"); err != nil {
		panic(err)
	}
	agents.AddCommand(list, show)
	root.AddCommand(agents)
	return root
}

// A line is refused for a command, a flag, a value or an argument that is not taken; one
// that is only named may leave out what people fill in.
func TestLinesThatAreNotUnderstoodAreFound(t *testing.T) {
	for text, want := range map[string]struct{ whole, named string }{
		"certctl agents list":               {},
		"certctl agents list --limit 3":     {},
		"certctl agents list --help":        {},
		"certctl agents show x --as y":      {},
		"certctl help agents":               {},
		"certctl agents":                    {whole: `"certctl agents" alone does nothing`},
		"certctl agents show":               {whole: "accepts 1 arg(s), received 0"},
		"certctl agents show x":             {whole: `required flag(s) "as" not set`},
		"certctl agents list x":             {whole: "unknown command"},
		"certctl agents list --limit COUNT": {whole: "invalid argument"},
		"certctl agents [list] --limit …":   {whole: "unknown flag: --limit"},
		"certctl agents list --gone":        {whole: "unknown flag: --gone", named: "unknown flag: --gone"},
		"certctl agents gone":               {whole: `has no command "gone"`, named: `has no command "gone"`},
		"certctl gone":                      {whole: "unknown command", named: "unknown command"},
	} {
		for whole, want := range map[bool]string{true: want.whole, false: want.named} {
			lines := commands("x:1", text, whole)
			require.Len(t, lines, 1, text)
			err := lines[0].Check(commandsOf())
			if want == "" {
				assert.NoError(t, err, text)
			} else if assert.ErrorContains(t, err, want, text) {
				assert.ErrorContains(t, err, "x:1: "+text)
			}
		}
	}
}
