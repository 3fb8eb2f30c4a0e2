package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/deploy/command"
	"github.com/certctl/certctl/agent/deploy/file"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/settings"
)

// maxDoubts bounds what is said of one configuration.
const maxDoubts = 50

// doubts says what a configuration needs and this host does not have: users,
// programs, directories. None is an error, since their packages may come later,
// and all are looked for anew when they are needed.
func doubts(s *config.Settings, report *settings.Report) []string {
	d := &doubter{report: report, known: make(map[string]error)}
	for _, name := range slices.Sorted(maps.Keys(s.Issuers)) {
		if a := s.Issuers[name].ACME; a != nil {
			d.issuer("issuers."+name+".acme.", a)
		}
	}
	for i := range s.Certificates {
		for j := range s.Certificates[i].Deployments {
			d.deployment(fmt.Sprintf("certificates[%d].deployments[%d].", i, j), &s.Certificates[i].Deployments[j])
		}
	}
	if more := len(d.list) - maxDoubts; more > 0 {
		d.list = append(d.list[:maxDoubts], fmt.Sprintf("and %d more", more))
	}
	return d.list
}

type doubter struct {
	report *settings.Report
	known  map[string]error // what was looked for already: many certificates need the same
	list   []string
}

// once looks for what a name of some kind stands for.
func (d *doubter) once(kind, name string, look func(string) error) error {
	err, known := d.known[kind+name]
	if !known {
		err = look(name)
		d.known[kind+name] = err
	}
	return err
}

func (d *doubter) add(path string, err error) {
	if err != nil {
		d.list = append(d.list, d.report.Problem(path, err).Error())
	}
}

func (d *doubter) issuer(at string, a *config.ACME) {
	switch {
	case a.Challenge == "http-01" && a.HTTP01.Webroot != "":
		d.add(at+"http_01.webroot", isDirectory(a.HTTP01.Webroot))
	case a.Challenge == "dns-01" && a.DNS01.Exec != nil:
		d.program(at+"dns_01.exec.command", a.DNS01.Exec.Command)
	}
}

func (d *doubter) deployment(at string, deployment *managed.Deployment) {
	d.add(at+"files.owner", d.once("user ", deployment.Files.Owner, file.CheckOwner))
	d.add(at+"files.group", d.once("group ", deployment.Files.Group, file.CheckGroup))
	d.program(at+"check", deployment.Check)
	d.program(at+"reload", deployment.Reload)
	if v := deployment.Verify; v != nil {
		d.program(at+"verify.command", v.Command)
	}
}

func (d *doubter) program(path string, argv []string) {
	if len(argv) == 0 {
		return
	}
	if err := d.once("program ", argv[0], command.Find); err != nil {
		d.add(path, fmt.Errorf("%w; install it, or correct the configuration", err))
	}
}

func isDirectory(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil // whoever checks a configuration may see less than the agent
	case err != nil:
		return fmt.Errorf("%w; create it, or correct the configuration", err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory; correct the configuration", path)
	}
	return nil
}
