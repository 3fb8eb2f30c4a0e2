package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// environment keeps the project's variables of an os.Environ list. Of several entries for one name the last counts, as
// it does for os/exec.
func environment(list []string) map[string]string {
	env := make(map[string]string)
	for _, entry := range list {
		if name, text, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, envPrefix) {
			env[name] = text
		}
	}
	return env
}

// EnvNames lists the environment variables of the struct that ptr points to, those that name secret files included,
// sorted.
func EnvNames(ptr any) ([]string, error) {
	schema, err := schemaOf(ptr)
	if err != nil {
		return nil, err
	}
	return schema.envNames(), nil
}

func (f *field) envNames() []string {
	var names []string
	f.single(func(f *field) {
		if f.env == "" {
			return
		}
		names = append(names, f.env)
		if f.isSecret() {
			names = append(names, f.fileEnv())
		}
	})
	sort.Strings(names)
	return names
}

func (l *loader) applyEnvironment() {
	l.schema.single(func(f *field) {
		if f.env == "" {
			return
		}
		text, given := l.env[f.env]
		file, fileGiven := "", false
		if f.isSecret() {
			file, fileGiven = l.env[f.fileEnv()]
		}
		switch {
		case given && fileGiven:
			l.problem(f.path, Origin{Source: SourceEnvironment, Name: f.fileEnv()},
				fmt.Errorf("both %s and %s are given; expected only one of them", f.env, f.fileEnv()))
		case given:
			l.setText(f, text, Origin{Source: SourceEnvironment, Name: f.env})
		case fileGiven:
			l.setFromFile(f, file, Origin{Source: SourceEnvironment, Name: f.fileEnv()})
		}
	})
	l.warnUnknownEnvironment()
}

func (l *loader) warnUnknownEnvironment() {
	own := l.schema.envNames()
	for name := range l.env {
		if slices.Contains(own, name) || slices.Contains(l.KnownEnv, name) {
			continue
		}
		warning := fmt.Sprintf("environment %s: no such setting, so it has no effect", name)
		if near := nearest(strings.TrimPrefix(name, envPrefix), trimPrefixes(own)); near != "" {
			warning += fmt.Sprintf("; did you mean %q?", envPrefix+near)
		}
		l.report.warnings = append(l.report.warnings, warning)
	}
	sort.Strings(l.report.warnings)
}

// trimPrefixes compares what differs: with the prefix, any two short names would look alike.
func trimPrefixes(names []string) []string {
	trimmed := make([]string, len(names))
	for i, name := range names {
		trimmed[i] = strings.TrimPrefix(name, envPrefix)
	}
	return trimmed
}

func (l *loader) applyFlags() {
	byPath := make(map[string]*field)
	l.schema.single(func(f *field) {
		byPath[f.path] = f
		if f.isSecret() {
			byPath[f.path+"_file"] = f
		}
	})
	for _, path := range slices.Sorted(maps.Keys(l.Flags)) {
		text := l.Flags[path]
		f, origin := byPath[path], Origin{Source: SourceFlag, Name: path}
		switch {
		case f == nil:
			l.problem(path, origin, unknown("no such setting", path, slices.Sorted(maps.Keys(byPath))))
		case path == f.path:
			l.setText(f, text, origin)
		default:
			if _, both := l.Flags[f.path]; both {
				l.problem(f.path, origin, fmt.Errorf("both %s and %s are given; expected only one of them", f.path, path))
				continue
			}
			l.setFromFile(f, text, origin)
		}
	}
}

// setText replaces the value of a setting outside lists and maps by what a text says.
func (l *loader) setText(f *field, text string, origin Origin) {
	l.claim(f, origin)
	fresh := reflect.New(f.typ).Elem()
	if err := f.parse(text, fresh); err != nil {
		l.problem(f.path, origin, err)
		return
	}
	l.value(f).Set(fresh)
}

// setFromFile replaces a secret by the text of a file.
func (l *loader) setFromFile(f *field, file string, origin Origin) {
	origin.SecretFile = file
	l.claim(f, origin)
	if l.superseded(f, origin.Source) {
		return
	}
	if err := f.readSecret(file, l.value(f)); err != nil {
		l.problem(f.path, origin, err)
	}
}

// claim records that origin gives the setting, in place of every earlier source.
func (l *loader) claim(f *field, origin Origin) {
	if f.kind != scalarField {
		for path := range l.report.origins {
			if isWithin(path, f.path) {
				delete(l.report.origins, path)
			}
		}
	}
	l.report.origins[f.path] = origin
}

// superseded reports whether a later source than this one gives the setting, so that a secret file which nobody needs,
// and which may not exist on this host, is not read.
func (l *loader) superseded(f *field, source Source) bool {
	if f.repeated {
		return false
	}
	given := func(in map[string]string, names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { _, ok := in[name]; return ok })
	}
	if source < SourceFlag && given(l.Flags, f.path, f.path+"_file") {
		return true
	}
	return source < SourceEnvironment && f.env != "" && given(l.env, f.env, f.fileEnv())
}

// parse reads the text form of a setting, as it stands in the environment, in flags and in default tags.
func (f *field) parse(text string, v reflect.Value) error {
	switch f.kind {
	case listField:
		return f.parseList(text, v)
	case mapField:
		return f.parseMap(text, v)
	default:
		if r := f.scalar.parse(text, v); r != nil {
			return f.scalar.refuse(f.scalar.show(text), r)
		}
		return nil
	}
}

func (f *field) parseList(text string, v reflect.Value) error {
	parts := splitList(text)
	list := reflect.MakeSlice(v.Type(), len(parts), len(parts))
	for i, part := range parts {
		if part == "" {
			return fmt.Errorf("element %d is empty; expected %s, separated by commas", i+1, f.expected())
		}
		if r := f.elem.scalar.parse(part, list.Index(i)); r != nil {
			return fmt.Errorf("element %d: %w", i+1, f.elem.scalar.refuse(f.elem.scalar.show(part), r))
		}
	}
	if err := f.checkLength(len(parts)); err != nil {
		return err
	}
	v.Set(list)
	return nil
}

func (f *field) parseMap(text string, v reflect.Value) error {
	parts := splitList(text)
	entries := reflect.MakeMapWithSize(v.Type(), len(parts))
	for i, part := range parts {
		key, value, ok := strings.Cut(part, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || key == "" || !utf8.ValidString(key) {
			return fmt.Errorf("entry %d has no key; expected key=value, separated by commas", i+1)
		}
		k := reflect.ValueOf(key).Convert(v.Type().Key())
		if entries.MapIndex(k).IsValid() {
			return fmt.Errorf("key %q is given twice; expected each key once", truncate(key, 64))
		}
		element := reflect.New(f.elem.typ).Elem()
		if r := f.elem.scalar.parse(value, element); r != nil {
			return fmt.Errorf("key %q: %w", truncate(key, 64), f.elem.scalar.refuse(f.elem.scalar.show(value), r))
		}
		entries.SetMapIndex(k, element)
	}
	if err := f.checkLength(len(parts)); err != nil {
		return err
	}
	v.Set(entries)
	return nil
}

// checkLength checks the number of elements of a list or map.
func (f *field) checkLength(length int) error {
	if f.bounds.allow(length) {
		return nil
	}
	return fmt.Errorf("there are %d; expected %s", length, f.expected())
}

// text writes a setting in its text form; secrets as "[redacted]".
func (f *field) text(v reflect.Value) string {
	switch f.kind {
	case listField:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = f.elem.scalar.format(v.Index(i))
		}
		return strings.Join(parts, ",")
	case mapField:
		var parts []string
		for _, key := range sortedKeys(v) {
			parts = append(parts, key.String()+"="+f.elem.scalar.format(v.MapIndex(key)))
		}
		return strings.Join(parts, ",")
	default:
		return f.scalar.format(v)
	}
}

func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	parts := strings.Split(text, ",")
	for i, part := range parts {
		parts[i] = strings.TrimSpace(part)
	}
	return parts
}

func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	return keys
}

// unknown is the message about a name that stands for nothing.
func unknown(what, name string, known []string) error {
	if near := nearest(name, known); near != "" {
		return fmt.Errorf("%s; did you mean %q?", what, near)
	}
	return errors.New(what)
}
