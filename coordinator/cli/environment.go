package cli

import (
	"os"

	"github.com/certctl/certctl/shared/settings"
)

// A variable stands in for a flag that was not given, and for a login.
type variable struct {
	name, flag string
	kind       string // of its value, in words
	meaning    string
}

func (v variable) value() string { return os.Getenv(v.name) }

// dumb reports whether the terminal takes nothing but text.
func dumb() bool { return os.Getenv("TERM") == "dumb" }

// The variables that certctl reads. Nothing here reads another one.
var (
	serverVariable    = variable{"CERTCTL_SERVER_URL", "--server", "URL", "URL of the coordinator, instead of the context's; several are parted by commas, and asked in turn. With one that the context does not know its token and CA are not used: they are for one coordinator alone."}
	tokenVariable     = variable{"CERTCTL_TOKEN", "", "secret", "API token, instead of the context's. It goes before CERTCTL_TOKEN_FILE and after --token-file."}
	tokenFileVariable = variable{"CERTCTL_TOKEN_FILE", "--token-file", "path", "File with an API token, instead of the context's."}
	caFileVariable    = variable{"CERTCTL_CA_FILE", "--ca-file", "path", "PEM file of the coordinator's root, instead of the context's."}
	contextVariable   = variable{"CERTCTL_CONTEXT", "--context", "text", "Context to use, instead of the current one. login does not read it."}

	variables = []variable{serverVariable, tokenVariable, tokenFileVariable, caFileVariable, contextVariable}
)

// Variables are the names of the environment variables that certctl reads.
func Variables() []string {
	names := make([]string, 0, len(variables))
	for _, v := range variables {
		names = append(names, v.name)
	}
	return names
}

// Reference describes for the documentation what certctl reads: its variables, and
// the file that logins are kept in.
func Reference() ([]settings.Section, error) {
	environment := settings.Section{
		Heading: "certctl", Level: 2,
		Doc: "`certctl` has no configuration file. It takes a coordinator and a login from its flags, then from these variables, then from\n" +
			"the context that `certctl login` has stored. A script needs `CERTCTL_SERVER_URL`, `CERTCTL_TOKEN_FILE` and `CERTCTL_CA_FILE`, and no login.",
	}
	for _, v := range variables {
		one := settings.Setting{Path: v.flag, Env: v.name, Type: v.kind, HasDefault: true, Doc: v.meaning}
		if v.flag == "" {
			one.Path, one.Env = v.name, ""
		}
		environment.Settings = append(environment.Settings, one)
	}
	file, err := settings.Sections(new(contextFile), "The contexts of certctl",
		"`certctl login` writes this file, and `certctl context` changes it: `certctl/config.yaml` in the user's directory for configuration\n"+
			"(`$XDG_CONFIG_HOME` or `~/.config`; on macOS `~/Library/Application Support`, on Windows `%AppData%`). It holds tokens: on Unix\n"+
			"it is refused when others than its owner may read it. No variable of the environment sets what is in it.")
	if err != nil {
		return nil, err
	}
	for i := range file {
		file[i].Level++
	}
	return append([]settings.Section{environment}, file...), nil
}
