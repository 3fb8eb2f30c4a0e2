package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentconfig "github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/coordinator/assignmentfile"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/settings"
)

// written are the pages that people write, by path from here, and their texts.
func written(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	for _, pattern := range []string{"../../*.md", "../../docs/*/*.md", "../../docs/*/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, paths, pattern)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			pages[path] = string(text)
		}
	}
	return pages
}

var (
	yamlExample   = regexp.MustCompile("(?s)```yaml\n(.*?)```")
	secretExample = regexp.MustCompile(`(_file:) /etc/certctl/\S+`)
	// accounts are issuers that the coordinator orders at.
	accounts     = regexp.MustCompile(`(?m)^    (digicert|entrust|globalsign|sectigo|vault):`)
	relativeLink = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// What a page tells to write into a configuration file is one that the program
// accepts.
func TestYAMLExamplesAreGoodConfigurations(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"), 0o600))
	file := filepath.Join(dir, "example.yaml")

	seen := map[string]int{}
	for path, text := range written(t) {
		for _, found := range yamlExample.FindAllStringSubmatch(text, -1) {
			// Their secrets are on no machine where this test runs.
			example := secretExample.ReplaceAllString(found[1], "$1 "+secret)
			var dst any = &agentconfig.Settings{}
			kind := "agent"
			switch {
			case strings.Contains(example, "\nselector: "):
				_, err := assignmentfile.Parse(path, example)
				assert.NoError(t, err, "%s:\n%s", path, found[1])
				seen["assignment"]++
				continue
			case strings.HasPrefix(example, "server:"), accounts.MatchString(example):
				dst, kind = &coordinatorconfig.Settings{}, "coordinator"
			case strings.HasPrefix(example, "      "):
				// What goes below an issuer that the page has shown before.
				kind = "issuer"
				example = "issuers:\n  example:\n    acme:\n      directory: https://ca.example.com/directory\n      terms_agreed: true\n" + example
			}
			require.NoError(t, os.WriteFile(file, []byte(example), 0o600))
			_, err := settings.Load(dst, settings.Options{File: file, FileRequired: true})
			assert.NoError(t, err, "%s:\n%s", path, found[1])
			seen[kind]++
		}
	}
	// The test would pass if it found none of them.
	for _, kind := range []string{"agent", "coordinator", "issuer", "assignment"} {
		assert.NotZero(t, seen[kind], kind)
	}
}

// A page that no index leads to is one that nobody finds: README and the
// README.md of each directory below docs are the indices.
func TestEveryPageIsInAnIndex(t *testing.T) {
	linked := make(map[string]bool)
	pages := written(t)
	for path, text := range pages {
		if filepath.Base(path) != "README.md" {
			continue
		}
		for _, link := range relativeLink.FindAllStringSubmatch(text, -1) {
			linked[filepath.Join(filepath.Dir(path), link[1])] = true
		}
	}
	below := 0
	for path := range pages {
		if !strings.HasPrefix(path, "../../docs/") {
			continue
		}
		below++
		found := linked[path]
		if dir, name := filepath.Split(path); name == "README.md" {
			found = found || linked[filepath.Clean(dir)]
		}
		assert.True(t, found, "%s: link it from README.md or from the README.md beside it", path)
	}
	assert.NotZero(t, below)
}

func TestLinksBetweenPagesLeadSomewhere(t *testing.T) {
	pages := written(t)
	for _, pattern := range []string{"../../*/*/DESIGN.md", "../../*/*/*/DESIGN.md"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, paths, pattern)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			pages[path] = string(text)
		}
	}
	links, parts := 0, 0
	for path, text := range pages {
		for _, link := range pageLink.FindAllStringSubmatch(codeFence.ReplaceAllString(text, ""), -1) {
			target := path
			if link[1] != "" {
				target = filepath.Join(filepath.Dir(path), link[1])
				_, err := os.Stat(target)
				assert.NoError(t, err, "a link in %s", path)
				links++
			}
			if link[2] == "" || !strings.HasSuffix(target, ".md") {
				continue
			}
			parts++
			other, known := pages[target]
			if assert.True(t, known, "%s: %s leads to a page that nobody looks at", path, link[0]) {
				assert.Contains(t, anchors(other), link[2], "%s: %s: the page has no such heading", path, link[0])
			}
		}
	}
	assert.NotZero(t, links)
	assert.NotZero(t, parts)
}

var (
	pageLink = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`)
	heading  = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	notSlug  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors are the names by which links lead to the headings of a page.
func anchors(page string) []string {
	var list []string
	seen := map[string]int{}
	for _, found := range heading.FindAllStringSubmatch(codeFence.ReplaceAllString(page, ""), -1) {
		slug := strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(found[1]), ""), " ", "-")
		name := slug
		if n := seen[slug]; n > 0 {
			name = fmt.Sprintf("%s-%d", slug, n)
		}
		seen[slug]++
		list = append(list, name)
	}
	return list
}

func TestAnchors(t *testing.T) {
	assert.Equal(t, []string{"a-page", "what-certctl-does-1-of-2", "a-page-1", "über_uns"}, anchors("# A page\n\n## What `certctl` does (1 of 2)\n\n```sh\n# no heading\n```\n\n### A page\n#### Über_uns!\n"))
}
