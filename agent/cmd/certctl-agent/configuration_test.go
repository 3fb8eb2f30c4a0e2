package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/settings"
)

func loadText(t *testing.T, text string) (*config.Settings, *settings.Report) {
	t.Helper()
	s := new(config.Settings)
	report, err := settings.Load(s, settings.Options{File: "agent.yaml", Text: []byte(text)})
	require.NoError(t, err)
	return s, report
}

const twoIssuers = `
issuers:
  one: {acme: {directory: https://one.example/directory, terms_agreed: true, eab: {key_id: k, hmac_key: c2VjcmV0}}}
  two: {acme: {directory: https://two.example/directory, terms_agreed: true}}
certificates:
  - {name: www, names: [www.example], issuer: one}
`

// An issuer whose section is the same is the same issuer, with all it knows.
func TestIssuersAreTakenOver(t *testing.T) {
	s, report := loadText(t, twoIssuers)
	p := &parts{settings: s, report: report, accountKeys: nowhere{}, issuerState: nowhere{}, coordinator: absentAt, log: slog.New(slog.DiscardHandler)}
	first, err := p.managed()
	require.NoError(t, err)

	s, report = loadText(t, twoIssuers+"log: {level: debug}\n")
	same := p.with(s, report)
	second, err := same.managed()
	require.NoError(t, err)
	assert.Same(t, first[0].Issuers[0].Issuer, second[0].Issuers[0].Issuer)
	assert.Same(t, p.made["two"].issuer, same.made["two"].issuer)
	assert.Equal(t, first[0].Issuers[0].Config, second[0].Issuers[0].Config)

	s.Issuers["one"].ACME.EAB.HMACKey = settings.NewSecret("b3RoZXI")
	other := same.with(s, report)
	third, err := other.managed()
	require.NoError(t, err)
	assert.NotEqual(t, first[0].Issuers[0].Config, third[0].Issuers[0].Config)
	assert.NotSame(t, p.made["one"].issuer, other.made["one"].issuer, "another secret is another section")
}

// What only issuers and targets can judge is told of all of them.
func TestAssemblyTellsAllMistakes(t *testing.T) {
	s, report := loadText(t, `
issuers:
  one: {acme: {directory: https://one.example/directory, terms_agreed: true, ca_file: /nowhere/one.pem}}
  two: {acme: {directory: https://two.example/directory, terms_agreed: true, ca_file: /nowhere/two.pem}}
certificates:
  - name: a
    names: [a.example]
    deployments:
      - {files: {key: /x/a.key}}
      - {files: {combined: /x/a.pem}, check: [nginx -t]}
  - name: b
    names: [b.example]
    issuer: two
    deployments: [{files: {key: /x/b.key}}]
`)
	_, err := checkAssembly(s, report)
	require.Error(t, err)
	places := []string{
		"agent.yaml:3:3: issuers.one: ca_file: ", "agent.yaml:4:3: issuers.two: ca_file: ",
		"agent.yaml:9:9: certificates[0].deployments[0]: files: set at least one of",
		"agent.yaml:10:9: certificates[0].deployments[1]: check: ",
		"agent.yaml:14:19: certificates[1].deployments[0]: files: set at least one of",
	}
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, len(places), "%v", err)
	for i, place := range places {
		assert.Contains(t, lines[i], place)
	}
}

func TestWhatCannotChangeIsNamed(t *testing.T) {
	_, before := loadText(t, "state_dir: /var/lib/a\n")
	_, after := loadText(t, "state_dir: /var/lib/b\ncontrol:\n  group: wheel\nlog:\n  level: debug\nrenewal:\n  concurrency: 3\n")
	c := &configuration{path: "agent.yaml"}
	err := c.allowed(before, after)
	require.ErrorContains(t, err, "agent.yaml:1:12: state_dir: cannot be changed while the agent runs")
	require.ErrorContains(t, err, "agent.yaml:3:10: control.group: ")
	assert.NotContains(t, err.Error(), "level")
	assert.NotContains(t, err.Error(), "concurrency")
	assert.NoError(t, c.allowed(after, after))

	gone := new(config.Settings)
	report, err := settings.Load(gone, settings.Options{File: filepath.Join(t.TempDir(), "none.yaml")})
	require.NoError(t, err)
	assert.ErrorContains(t, c.allowed(before, report), "is not there any more")
}

func TestChangedSettings(t *testing.T) {
	was, wasReport := loadText(t, twoIssuers)
	is, isReport := loadText(t, twoIssuers+"renewal: {concurrency: 3}\nlog: {level: debug}\n")
	is.Issuers["one"].ACME.EAB.HMACKey = settings.NewSecret("b3RoZXI")
	delete(is.Issuers, "two")
	assert.Equal(t, []string{"log.level", "renewal.concurrency", "issuers.one", "issuers.two"}, changedSettings(was, wasReport, is, isReport))
	assert.Empty(t, changedSettings(was, wasReport, was, wasReport))
}

// A change is one of time, size or inode, or that a file came or went.
func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	at := time.Now().Add(-time.Hour)
	write := func(path, text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chtimes(path, at, at))
	}
	write(one, "a")
	first := look([]string{one, two})
	assert.True(t, first.same(look(first.paths())))
	write(two, "b")
	assert.False(t, first.same(look(first.paths())), "it came")
	second := look(first.paths())
	write(one, "ab")
	assert.False(t, second.same(look(second.paths())), "another size")
	write(one, "c")
	assert.True(t, second.same(look(second.paths())))
	require.NoError(t, os.Chtimes(one, time.Now(), time.Now()))
	assert.False(t, second.same(look(second.paths())), "another time")
	third := filepath.Join(dir, "three")
	write(third, "a")
	require.NoError(t, os.Rename(third, one))
	assert.False(t, second.same(look(second.paths())), "another file under the same name")
}
