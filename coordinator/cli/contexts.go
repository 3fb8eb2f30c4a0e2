package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/settings"
)

// contextFile is the file that logins are kept in. It holds tokens and is
// readable by its owner alone.
type contextFile struct {
	Current  string           `yaml:"current" default:"" doc:"Name of the context that is used when no other is named."`
	Contexts map[string]login `yaml:"contexts" doc:"Logins by name."`
}

// login is one coordinator and who one is there.
type login struct {
	Server string          `yaml:"server" required:"true" doc:"URL of the coordinator."`
	CA     string          `yaml:"ca" default:"" doc:"CA certificates to trust for the coordinator, PEM."`
	Token  settings.Secret `yaml:"token" doc:"API token."`
}

// storedLogin is login in the form that is written, the one place where
// the token is text.
type storedLogin struct {
	Server string `yaml:"server"`
	CA     string `yaml:"ca,omitempty"`
	Token  string `yaml:"token"`
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
		stored.Contexts[name] = storedLogin{Server: c.Server, CA: c.CA, Token: c.Token.Reveal()}
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
	context, server, tokenFile, caFile string // flags; "" if not given
	consistent                         bool   // a flag
	// written makes what one command line reads after a change show the change,
	// whichever node answers.
	written client.Written
}

// connect makes the client.
func (t *target) connect() (*client.Client, error) {
	chosen, err := t.resolve()
	if err != nil {
		return nil, err
	}
	return chosen.client(&t.written, t.consistent)
}

func (l *login) client(written *client.Written, consistent bool) (*client.Client, error) {
	token, err := apitoken.Parse(l.Token.Reveal())
	if err != nil {
		return nil, fmt.Errorf("API token: %w", err)
	}
	return client.New(client.Config{Server: l.Server, Token: token, Roots: l.CA, Written: written, Consistent: consistent})
}

func (t *target) resolve() (*login, error) {
	chosen, err := t.stored()
	if err != nil {
		return nil, err
	}
	if server := first(t.server, serverVariable.value()); server != "" {
		base, err := client.ParseServer(server)
		if err != nil {
			return nil, err
		}
		if base.String() != strings.TrimSuffix(chosen.Server, "/") {
			// A token is for one coordinator: it must not go to another one.
			chosen = &login{Server: base.String()}
		}
	}
	if file := first(t.caFile, caFileVariable.value()); file != "" {
		if chosen.CA, err = readSmall(file); err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
	}
	token, err := t.token()
	if err != nil {
		return nil, err
	}
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
