package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
)

// pressTab is what bash does when somebody presses Tab at a line: it splits it into words
// and calls the function that the script has registered. The function of the package
// bash-completion that the script uses is given here in the little of it that is needed.
const pressTab = `
_init_completion() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}; }
compopt() { :; }
source <(certctl completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
read -ra COMP_WORDS <<< "$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p certctl | sed 's/.* -F \([^ ]*\) .*/\1/')
printf '%s\n' "${COMPREPLY[@]}"
`

// The script that "completion bash" writes completes names in a real bash.
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	require.NoError(t, err, "bash is part of what the scripts of this tree need")
	c := apitest.Start(t)
	logIn(t, c)
	c.Agent("u53n5nbgbmcuo7ob", "web1.example.com", map[string]string{"env": "prod"}).
		Report("www", apitest.Valid(c.Now(), 10*day, "www.example.com"))
	c.Agent("x53n5nbgbmcuo7ob", "db1.example.com", nil)

	self, err := os.Executable()
	require.NoError(t, err)
	programs := t.TempDir()
	program := filepath.Join(programs, "certctl")
	require.NoError(t, os.WriteFile(program, fmt.Appendf(nil, "#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asCertctl, self), 0o700))
	t.Setenv("PATH", programs+string(os.PathListSeparator)+os.Getenv("PATH"))
	for line, want := range map[string]string{
		"certctl agents show u":                       "u53n5nbgbmcuo7ob",
		"certctl agents show u53n5nbgbmcuo7ob ":       "",
		"certctl certificates show u53n5nbgbmcuo7ob ": "www",
		"certctl jobs list --agent x":                 "x53n5nbgbmcuo7ob",
		"certctl jobs list --state needs_person,retr": `needs_person\,retrying`, // the same to bash
		"certctl cert":                            "certificates",
		"certctl status --output y":               "yaml",
		"certctl agents list --label e":           "env=prod",
		"certctl context use d":                   "default",
		"certctl agents show --context nowhere u": "",
	} {
		got := ""
		for range 5 { // who presses the key on a machine that is too busy gets nothing, and presses it again
			out, err := exec.CommandContext(t.Context(), bash, "--norc", "--noprofile", "-c", pressTab, "bash", line).CombinedOutput()
			require.NoError(t, err, string(out))
			if got = strings.TrimSpace(string(out)); got != "" || want == "" {
				break
			}
		}
		assert.Equal(t, want, got, line)
	}
}
