package docs

import (
	"fmt"

	agentconfig "github.com/certctl/certctl/agent/config"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

// A givenVariable is one that certctl sets for commands that it runs. It reads none of them.
type givenVariable struct {
	name    string
	file    string // that sets it
	to      string
	meaning string
}

const (
	toDeployment = "`check`, `reload`, `verify.command`"
	toHook       = "`dns_01.exec`"
	deployFile   = "agent/deploy/file/plan.go"
	hookFile     = "agent/issuer/acme/dnsexec.go"
)

var givenVariables = []givenVariable{
	{"CERTCTL_ACTION", deployFile, toDeployment, "`deploy`, or `rollback` where the certificate before is put back."},
	{"CERTCTL_CERTIFICATE", deployFile, toDeployment, "Name of the certificate in the configuration."},
	{"CERTCTL_GENERATION", deployFile, toDeployment, "Number of the certificate among those of that name; each renewal adds one."},
	{"CERTCTL_FINGERPRINT", deployFile, toDeployment, "SHA-256 of the certificate that is put there, in hexadecimal."},
	{"CERTCTL_FILES", deployFile, toDeployment, "Paths of the files, parted by `:`, on Windows by `;`."},
	{"CERTCTL_ACME_ACTION", hookFile, toHook, "`present` or `cleanup`; also an argument."},
	{"CERTCTL_ACME_NAME", hookFile, toHook, "Name of the TXT record; also an argument."},
	{"CERTCTL_ACME_VALUE", hookFile, toHook, "Value of the TXT record; also an argument."},
	{"CERTCTL_ACME_DOMAIN", hookFile, toHook, "Name that is to be validated."},
}

// given is the section of the configuration page about variables that commands find.
func given() string {
	text := `
## What commands find

Commands that the agent runs find these variables. None of them is secret, and none is a setting: the agent reads none of them.

| Variable | Given to | Meaning |
| --- | --- | --- |
`
	for _, v := range givenVariables {
		text += fmt.Sprintf("| `%s` | %s | %s |\n", v.name, v.to, v.meaning)
	}
	return text
}

// environmentFile is the example of /etc/certctl/NAME.env, which the unit of the
// program reads.
func environmentFile(name, program string, ptr any) ([]byte, error) {
	intro := fmt.Sprintf(`Environment of %[2]s: /etc/certctl/%[1]s.env, which the unit %[2]s.service
reads. Every variable is here with its default; take away the # before one to set it. What is
set here replaces what the configuration file says, as a whole. Values with secrets make this
file secret: give it the mode 0600 and leave it to root.

%[3]s names another configuration file than /etc/certctl/%[1]s.yaml.`, name, program, cli.FileVariable)
	text, err := settings.EnvExample(ptr, intro)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(text, "\n## The configuration file.\n#%s=/etc/certctl/%s.yaml\n", cli.FileVariable, name), nil
}

// environmentFiles are the examples that packages ship, by path from the root of
// the tree.
func environmentFiles() (map[string][]byte, error) {
	agent, err := environmentFile("agent", "certctl-agent", &agentconfig.Settings{})
	if err != nil {
		return nil, err
	}
	coordinator, err := environmentFile("coordinator", "certctl-coordinator", &coordinatorconfig.Settings{})
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"packaging/systemd/agent.env": agent, "packaging/systemd/coordinator.env": coordinator}, nil
}
