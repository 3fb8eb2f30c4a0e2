package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// contextFile is the file that logins are kept in. It holds tokens and is
// readable by its owner alone.
type contextFile struct {
	Current  string           `yaml:"current" default:"" doc:"Name of the context that is used when no other is named."`
	Contexts map[string]login `yaml:"contexts" doc:"Logins by name."`
}

// login is one coordinator and who one is there.
type login struct {
	Server string          `yaml:"server" required:"true" doc:"URL of the coordinator, which is asked first."`
	Others []string        `yaml:"others" max:"16" doc:"Further URLs that were given at login, of other nodes of the same coordinator. They are asked in turn when those before do not answer."`
	Nodes  []string        `yaml:"nodes" max:"16" doc:"URLs of the cluster's nodes, as the cluster has told them. They are asked after those that were given. certctl keeps the list up to date by itself."`
	CA     string          `yaml:"ca" default:"" doc:"CA certificates to trust for the coordinator, PEM."`
	Token  settings.Secret `yaml:"token" doc:"API token."`
	Next   settings.Secret `yaml:"next_token" doc:"API token with the secret that a rotation under way gives it."`
	Warned string          `yaml:"warned" default:"" doc:"Day on which certctl last said that the token expires soon."`
}

// servers are all that may be asked, in that order.
func (l *login) servers() []string {
	var list []string
	for _, text := range slices.Concat([]string{l.Server}, l.Others, l.Nodes) {
		base, err := client.ParseServer(text)
		switch {
		case text == "":
		case err != nil:
			// Somebody wrote it into the file; who asks is told.
			list = append(list, text)
		case !slices.Contains(list, base.String()):
			list = append(list, base.String())
		}
	}
	return list
}

// storedLogin is login in the form that is written, the one place where
// the token is text.
type storedLogin struct {
	Server string   `yaml:"server"`
	Others []string `yaml:"others,omitempty"`
	Nodes  []string `yaml:"nodes,omitempty"`
	CA     string   `yaml:"ca,omitempty"`
	Token  string   `yaml:"token"`
	Next   string   `yaml:"next_token,omitempty"`
	Warned string   `yaml:"warned,omitempty"`
}

// contextPath is where the file is.
func contextPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no directory for the login: %w; set HOME", err)
	}
	return filepath.Join(dir, "certctl", "config.yaml"), nil
}

// readContexts reads the file; without one there are no contexts.
func readContexts() (*contextFile, error) {
	path, err := contextPath()
	if err != nil {
		return nil, err
	}
	file := new(contextFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the logins: %w", err)
	}
	if insecure(info) {
		return nil, fmt.Errorf("%s holds tokens and may be read by others; run: chmod 600 %s", path, path)
	}
	if _, err := settings.Load(file, settings.Options{File: path, FileRequired: true}); err != nil {
		return nil, err
	}
	return file, nil
}

// write replaces the file.
func (f *contextFile) write() error {
	path, err := contextPath()
	if err != nil {
		return err
	}
	stored := struct {
		Current  string                 `yaml:"current"`
		Contexts map[string]storedLogin `yaml:"contexts"`
	}{f.Current, make(map[string]storedLogin, len(f.Contexts))}
	for name, c := range f.Contexts {
		stored.Contexts[name] = storedLogin{Server: c.Server, Others: c.Others, Nodes: c.Nodes, CA: c.CA, Token: c.Token.Reveal(), Next: c.Next.Reveal(), Warned: c.Warned}
	}
	text, err := yaml.MarshalWithOptions(stored, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return fmt.Errorf("write the logins: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the logins: %w", err)
	}
	return durable.WriteFileOwned(path, text, durable.Ownership{UID: durable.Keep, GID: durable.Keep, Mode: 0o600})
}

// target is where to send requests, from flags, then the environment, then the
// context.
type target struct {
	context, tokenFile, caFile string   // flags; "" if not given
	server                     []string // a flag
	consistent                 bool     // a flag
	// moved is told when a server cannot answer and the next one is asked.
	moved func(from, to string, why error)
	// waits is told that a read waits, since the token is used too often.
	waits func(pause time.Duration, why error)

	// What was chosen, so that one command line goes on with the node that answers,
	// and what it reads after a change shows the change.
	connected *client.Client
	from      string // the context that connected is of; "" if of none
	// login is what connected was made of, and own says that its token is the context's.
	login *login
	own   bool
	// rotated says that the token has got another secret meanwhile.
	rotated bool
}

// connect makes the client, the same one each time.
func (t *target) connect() (*client.Client, error) {
	if t.connected != nil {
		return t.connected, nil
	}
	chosen, err := t.resolve()
	if err != nil {
		return nil, err
	}
	t.login = chosen
	t.connected, err = chosen.client(t)
	return t.connected, err
}

func (l *login) client(t *target) (*client.Client, error) {
	token, err := apitoken.Parse(l.Token.Reveal())
	if err != nil {
		return nil, fmt.Errorf("API token: %w", err)
	}
	return client.New(client.Config{Servers: l.servers(), Token: token, Roots: l.CA, Consistent: t.consistent, Moved: t.moved, Waits: t.waits})
}

// given are the servers that flags or the environment name, if any.
func (t *target) given() ([]string, error) {
	texts := t.server
	if len(texts) == 0 {
		texts = strings.Split(serverVariable.value(), ",")
	}
	var list []string
	for _, text := range texts {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		base, err := client.ParseServer(text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, base.String()) {
			list = append(list, base.String())
		}
	}
	if len(list) > wire.MaxServers {
		return nil, fmt.Errorf("%d servers are given; at most %d are asked", len(list), wire.MaxServers)
	}
	return list, nil
}

func (t *target) resolve() (*login, error) {
	chosen, err := t.stored()
	if err != nil {
		return nil, err
	}
	given, err := t.given()
	if err != nil {
		return nil, err
	}
	if len(given) > 0 {
		known := chosen.servers()
		if slices.ContainsFunc(given, func(server string) bool { return !slices.Contains(known, server) }) {
			// A token is for one coordinator: it must not go to another one.
			chosen, t.from = &login{}, ""
		}
		// Who names nodes means these.
		chosen.Server, chosen.Others, chosen.Nodes = given[0], given[1:], nil
	}
	if file := first(t.caFile, caFileVariable.value()); file != "" {
		t.from = "" // what it is told there is another matter
		if chosen.CA, err = readSmall(file); err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
	}
	token, err := t.token()
	if err != nil {
		return nil, err
	}
	t.own = token == "" && t.from != ""
	if token != "" {
		chosen.Token = settings.NewSecret(token)
	}
	switch {
	case chosen.Server == "":
		return nil, errors.New("no coordinator is known: log in with \"certctl login\", or set CERTCTL_SERVER_URL and CERTCTL_TOKEN_FILE")
	case !chosen.Token.IsSet():
		return nil, fmt.Errorf("there is no API token for %s: log in with \"certctl login\", or set CERTCTL_TOKEN_FILE", chosen.Server)
	}
	return chosen, nil
}

// remember keeps in the context what the cluster has told of its nodes. A cluster of
// one is reached by what was given, which may be a name that it does not know of
// itself.
func (t *target) remember() error {
	if t.connected == nil || t.from == "" {
		return nil
	}
	nodes := t.connected.Nodes()
	file, err := readContexts()
	if err != nil {
		return err
	}
	kept, ok := file.Contexts[t.from]
	if !ok || !worthKeeping(nodes, kept.Nodes) {
		return nil
	}
	kept.Nodes = nodes
	file.Contexts[t.from] = kept
	return file.write()
}

// change changes the context that connected is of, as the file has it now.
func (t *target) change(what func(*login)) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	kept, ok := file.Contexts[t.from]
	if !ok {
		return unknownContext(t.from)
	}
	what(&kept)
	file.Contexts[t.from] = kept
	return file.write()
}

func worthKeeping(nodes, before []string) bool {
	if len(nodes) == 0 || len(nodes) == 1 && len(before) == 0 {
		return false
	}
	return !slices.Equal(nodes, before)
}

// stored is the context that the file has; an empty one if none is chosen.
func (t *target) stored() (*login, error) {
	named := first(t.context, contextVariable.value())
	if _, err := contextPath(); err != nil && named == "" {
		return &login{}, nil // a script that has no home, and needs none
	}
	file, err := readContexts()
	if err != nil {
		return nil, err
	}
	name := first(named, file.Current)
	if name == "" {
		return &login{}, nil
	}
	c, ok := file.Contexts[name]
	if !ok {
		return nil, unknownContext(name)
	}
	t.from = name
	return &c, nil
}

// token is the one that flags or environment give; "" for none.
func (t *target) token() (string, error) {
	file := t.tokenFile
	if file == "" {
		if text := tokenVariable.value(); text != "" {
			return text, nil
		}
		file = tokenFileVariable.value()
	}
	if file == "" {
		return "", nil
	}
	text, err := readSmall(file)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	return text, nil
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
