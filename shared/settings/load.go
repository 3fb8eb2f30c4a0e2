package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sync"
)

const maxSecretSize = 64 << 10

// Options says where Load looks.
type Options struct {
	// File is the YAML file; "" for none.
	File string
	// Text, if it is not nil, is read instead of the file, which only names it in messages.
	Text []byte
	// FileRequired makes it a problem if File does not exist: set it when the user named the file.
	FileRequired bool
	// Guarded refuses a File that others than root and this process's user may change: set it for a program that does
	// what the file says with rights that others do not have.
	Guarded bool
	// Env is the environment in the form of os.Environ.
	Env []string
	// KnownEnv are CERTCTL_ variables of sibling binaries, which are not warned about. See EnvNames.
	KnownEnv []string
	// Flags holds the flags that were given, by the dotted path of their setting, as texts in the form of the environment.
	Flags map[string]string
}

// Load fills the struct that dst points to from defaults, file, environment and flags, in this order, and then runs its
// Validator methods. What dst held before does not matter. If anything is wrong, dst is left as it was and the error is
// an *Error with every problem found; the report is returned in either case, unless the struct itself is declared wrong.
func Load(dst any, options Options) (*Report, error) {
	schema, err := schemaOf(dst)
	if err != nil {
		return nil, err
	}
	if reflect.ValueOf(dst).IsNil() {
		return nil, fmt.Errorf("settings: need a pointer to a struct, got a nil %T", dst)
	}
	l := &loader{
		Options: options,
		schema:  schema,
		root:    reflect.New(schema.typ).Elem(),
		env:     environment(options.Env),
		report:  &Report{origins: make(map[string]Origin), file: options.File},
	}
	l.applyDefaults(schema, l.root)
	l.applyFile()
	l.applyEnvironment()
	l.applyFlags()
	if !l.fileLost {
		l.checkRequired(schema, l.root, "")
	}
	unread := l.problems
	l.validate(schema, l.root, "", &unread)
	root, origins := l.root, l.report.origins // and no more of the loader is kept
	l.report.values = sync.OnceValue(func() []Value { return valuesOf(schema, root, origins) })
	if err := l.problems.err(); err != nil {
		return l.report, err
	}
	reflect.ValueOf(dst).Elem().Set(l.root)
	return l.report, nil
}

// loader is one run of Load.
type loader struct {
	Options
	schema   *field
	root     reflect.Value // addressable; becomes *dst
	env      map[string]string
	report   *Report
	problems collector
	fileLost bool // the file could not be read, so what it would have set is not known
}

func (l *loader) problem(path string, origin Origin, err error) {
	l.problems.add(&Problem{Path: path, Origin: origin, Err: err})
}

// applyDefaults gives every setting of a section its default. Optional sections stay nil.
func (l *loader) applyDefaults(section *field, v reflect.Value) {
	for _, f := range section.children {
		if f.kind == sectionField {
			if !f.optional {
				l.applyDefaults(f, v.FieldByIndex(f.index))
			}
			continue
		}
		if text, ok := f.defaultFor(hostOS); ok {
			if err := f.parse(text, v.FieldByIndex(f.index)); err != nil {
				l.problem(f.path, Origin{}, fmt.Errorf("default: %w", err))
			}
		}
	}
}

func (l *loader) applyFile() {
	if l.File == "" && l.Text == nil {
		return
	}
	origin := Origin{Source: SourceFile, File: l.File}
	data, err := l.Text, error(nil)
	if data == nil {
		data, err = readBounded(l.File, maxFileSize, l.checkFile)
	}
	access, refused := errors.AsType[*AccessError](err)
	switch {
	case len(data) > maxFileSize:
		l.fileLost = true
		l.problem("", origin, fmt.Errorf("the text is larger than %d KiB", maxFileSize>>10))
		return
	case errors.Is(err, os.ErrNotExist) && !l.FileRequired:
		return
	case refused:
		l.fileLost = true
		l.problem("", origin, fmt.Errorf("the configuration file is not used: %w", access))
		return
	case errors.Is(err, os.ErrPermission):
		// A check by root finds nothing wrong with it: a service has a user of its own.
		l.fileLost = true
		l.problem("", origin, fmt.Errorf("cannot read the configuration file: %w; let the user that this program runs as read it", err))
		return
	case err != nil:
		l.fileLost = true
		l.problem("", origin, fmt.Errorf("cannot read the configuration file: %w", err))
		return
	}
	l.report.fileRead = true
	body, problems := parseYAML(data)
	l.fileLost = len(problems) > 0
	for _, p := range problems {
		origin.Line, origin.Column = p.line, p.column
		l.problem("", origin, p.err)
	}
	if body != nil {
		// Room for about as many settings as the text has, so that the map of a large one need not grow from nothing.
		l.report.origins = make(map[string]Origin, len(data)/32)
		d := decoder{loader: l}
		d.section(l.schema, body, l.root, "")
	}
}

// checkFile judges who may change the configuration file.
func (l *loader) checkFile(path string, info os.FileInfo) error {
	if !l.Guarded {
		return nil
	}
	return checkUnchangeable(path, info)
}

// readBounded reads a file and refuses one that is larger than limit bytes, or that check refuses.
func readBounded(path string, limit int64, check func(path string, info os.FileInfo) error) (data []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, file.Close()) }()
	info, err := file.Stat() // of what is read, whatever has the name by now
	if err != nil {
		return nil, err
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d KiB", path, limit>>10)
	}
	return data, nil
}

// readSecret sets a secret from a file, which it remembers.
func (f *field) readSecret(path string, v reflect.Value) error {
	text, err := secretText(path)
	if err != nil {
		return err
	}
	if r := f.scalar.parse(text, v); r != nil {
		return f.scalar.refuse("the text in secret file "+path, r)
	}
	secret := v.Interface().(Secret)
	secret.file = path
	v.Set(reflect.ValueOf(secret))
	return nil
}

// besideFile resolves a path in the configuration file relative to the directory of that file.
func (l *loader) besideFile(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(l.File), path)
}

// value returns the place of a setting outside lists and maps, and creates the optional sections on the way to it.
func (l *loader) value(f *field) reflect.Value {
	if f.parent == nil {
		return l.root
	}
	v := l.value(f.parent).FieldByIndex(f.index)
	if f.optional {
		v = l.enable(f, v)
	}
	return v
}

// enable makes sure that an optional section exists and returns its struct.
func (l *loader) enable(f *field, v reflect.Value) reflect.Value {
	if v.IsNil() {
		v.Set(reflect.New(f.typ))
		l.applyDefaults(f, v.Elem())
	}
	return v.Elem()
}

// valuesOf lists the settings of a configuration with their origins.
func valuesOf(schema *field, root reflect.Value, origins map[string]Origin) (list []Value) {
	eachSetting(schema, root, "", func(f *field, v reflect.Value, path string) {
		list = append(list, Value{Path: path, Text: f.text(v), Origin: origins[path]})
	})
	return list
}

// eachSetting visits every setting of a configuration that is present: the scalars, the lists and maps of scalars, and
// those inside the sections that lists, maps and optional sections hold.
func eachSetting(section *field, v reflect.Value, path string, visit func(f *field, v reflect.Value, path string)) {
	for _, f := range section.children {
		eachBelow(f, v.FieldByIndex(f.index), joinPath(path, f.key), visit)
	}
}

func eachBelow(f *field, v reflect.Value, path string, visit func(f *field, v reflect.Value, path string)) {
	if f.kind == sectionField {
		if f.optional {
			if v.IsNil() {
				return
			}
			v = v.Elem()
		}
		eachSetting(f, v, path, visit)
		return
	}
	if f.elem == nil || f.elem.kind == scalarField {
		visit(f, v, path)
		return
	}
	eachElement(f, v, path, func(element reflect.Value, path string) { eachSetting(f.elem, element, path, visit) })
}

// eachElement visits the elements of a list or map with their paths, maps in the order of their keys. The element is
// addressable, so that methods with pointer receivers can be called; that of a map is a copy.
func eachElement(f *field, v reflect.Value, path string, visit func(element reflect.Value, path string)) {
	if f.kind == listField {
		for i := range v.Len() {
			visit(v.Index(i), joinIndex(path, i))
		}
		return
	}
	for _, key := range sortedKeys(v) {
		element := reflect.New(f.elem.typ).Elem()
		element.Set(v.MapIndex(key))
		visit(element, joinPath(path, key.String()))
	}
}
