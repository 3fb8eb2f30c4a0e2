package settings

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds an Error: beyond it a file is simply the wrong file, and more lines help nobody.
const maxProblems = 50

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	// Path is the dotted path of the setting, "" for the configuration as a whole.
	Path string
	// Origin is where the wrong value, or the section that lacks a value, stands; zero if no source mentions it.
	Origin Origin
	// Err says what is wrong, what was expected and how to mend it.
	Err error
}

// Error puts the place in front: "agent.yaml:3:5: renewal.concurrency: cannot use ...".
func (p *Problem) Error() string {
	switch {
	case p.Origin.Source == SourceEnvironment, p.Origin.Source == SourceFlag:
		// The variable or flag already names the setting.
		return fmt.Sprintf("%s: %v", p.Origin.place(), p.Err)
	case p.Origin.Source == SourceFile && p.Path != "":
		return fmt.Sprintf("%s: %s: %v", p.Origin.place(), p.Path, p.Err)
	case p.Origin.Source == SourceFile:
		return fmt.Sprintf("%s: %v", p.Origin.place(), p.Err)
	case p.Path != "":
		return fmt.Sprintf("%s: %v", p.Path, p.Err)
	default:
		return p.Err.Error()
	}
}

// Unwrap returns Err.
func (p *Problem) Unwrap() error { return p.Err }

// Error is every problem of a configuration, in the order of the file, then the environment, then the flags, then
// settings that no source mentions.
type Error struct {
	// Problems holds at most the first 50.
	Problems []*Problem
	// Omitted counts the problems beyond those.
	Omitted int
}

// Error returns one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		lines = append(lines, p.Error())
	}
	if e.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("and %d more problems", e.Omitted))
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look into each problem.
func (e *Error) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		errs[i] = p
	}
	return errs
}

// collector gathers problems. It keeps a bounded number of each source and counts the rest, so that a hostile file costs
// no more memory than its own size.
type collector struct {
	kept    [4][]*Problem
	total   int
	dropped bool
}

func (c *collector) add(p *Problem) {
	c.total++
	rank := p.Origin.rank()
	if len(c.kept[rank]) == maxProblems {
		c.dropped = true
		return
	}
	c.kept[rank] = append(c.kept[rank], p)
}

// within reports whether a problem belongs to path or to something below it, or may have, since its path was not kept.
func (c *collector) within(path string) bool {
	return c.dropped || slices.ContainsFunc(slices.Concat(c.kept[:]...), func(p *Problem) bool { return isWithin(p.Path, path) })
}

// at reports whether a kept problem is with path itself.
func (c *collector) at(path string) bool {
	return slices.ContainsFunc(slices.Concat(c.kept[:]...), func(p *Problem) bool { return p.Path == path })
}

// err returns nil if nothing was added.
func (c *collector) err() error {
	if c.total == 0 {
		return nil
	}
	all := slices.Concat(c.kept[:]...)
	slices.SortStableFunc(all, func(a, b *Problem) int {
		return cmp.Or(
			cmp.Compare(a.Origin.rank(), b.Origin.rank()),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column),
			cmp.Compare(a.Origin.Name, b.Origin.Name),
		)
	})
	all = all[:min(len(all), maxProblems)]
	return &Error{Problems: all, Omitted: c.total - len(all)}
}
