package settings

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// fieldKind is the shape of a setting.
type fieldKind int

const (
	scalarField fieldKind = iota
	listField
	mapField
	sectionField
)

// field describes one setting, section, or the element of a list or map, as its tags declare it.
type field struct {
	kind   fieldKind
	key    string // YAML key; "" for the root and for elements
	path   string // dotted path; elements add "[]" for lists and ".<name>" for maps
	index  []int  // from the enclosing struct, through inlined structs
	typ    reflect.Type
	parent *field

	scalar   *scalar  // of scalarField
	elem     *field   // of listField and mapField
	children []*field // of sectionField, in the order of the struct
	optional bool     // a pointer to a section
	repeated bool     // somewhere inside a list or map, so without environment and flags

	tags
}

// fileKey is the YAML key that reads the secret from a file.
func (f *field) fileKey() string { return f.key + "_file" }

// fileEnv is the environment variable that reads the secret from a file.
func (f *field) fileEnv() string { return f.env + "_FILE" }

// isSecret reports whether the setting may be read from a file.
func (f *field) isSecret() bool { return f.kind == scalarField && f.scalar.secret && f.key != "" }

// expected says what the setting takes, for the end of a message.
func (f *field) expected() string {
	switch f.kind {
	case listField:
		if f.elem.kind == sectionField {
			return "a list of sections" + f.bounds.lengthText("element")
		}
		return "a list" + f.bounds.lengthText("element") + ", each " + f.elem.scalar.expected
	case mapField:
		if f.elem.kind == sectionField {
			return "named sections" + f.bounds.lengthText("key")
		}
		return "a map" + f.bounds.lengthText("key") + ", each value " + f.elem.scalar.expected
	case sectionField:
		return "a section with " + orList(f.keys())
	default:
		return f.scalar.expected
	}
}

// keys lists the keys of a section, those for secret files included.
func (f *field) keys() []string {
	var keys []string
	for _, child := range f.children {
		keys = append(keys, child.key)
		if child.isSecret() {
			keys = append(keys, child.fileKey())
		}
	}
	return keys
}

// child finds a key of a section and says whether it is the form that names a secret's file.
func (f *field) child(key string) (child *field, isFile bool) {
	for _, child := range f.children {
		if child.key == key {
			return child, false
		}
		if child.isSecret() && child.fileKey() == key {
			return child, true
		}
	}
	return nil, false
}

// settings calls visit for every field below f, parents first, elements of lists and maps included.
func (f *field) settings(visit func(*field)) {
	for _, child := range f.children {
		visit(child)
		child.settings(visit)
	}
	if f.elem != nil && f.elem.kind == sectionField {
		f.elem.settings(visit)
	}
}

// single calls visit for the fields that can stand in the environment: those outside lists and maps that a text can give.
func (f *field) single(visit func(*field)) {
	f.settings(func(f *field) {
		if !f.repeated && !f.isOrHoldsSections() {
			visit(f)
		}
	})
}

var keyPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// schemaOf builds the description of the struct that ptr points to.
func schemaOf(ptr any) (*field, error) {
	typ := reflect.TypeOf(ptr)
	if typ == nil || typ.Kind() != reflect.Pointer || typ.Elem().Kind() != reflect.Struct || isScalar(typ.Elem()) {
		return nil, fmt.Errorf("settings: need a pointer to a struct, got %T", ptr)
	}
	b := schemaBuilder{envs: make(map[string]string)}
	root := &field{kind: sectionField, typ: typ.Elem()}
	b.section(root, root.typ, nil)
	if err := errors.Join(b.errs...); err != nil {
		return nil, fmt.Errorf("settings: struct %s: %w", typ.Elem(), err)
	}
	return root, nil
}

// schemaBuilder gathers every mistake of a struct, so that its author mends them in one go.
type schemaBuilder struct {
	envs map[string]string // environment variable to path
	open []reflect.Type    // the structs being described, to refuse a struct that contains itself
	errs []error
}

func (b *schemaBuilder) errorf(where, format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf("field %s: %s", where, fmt.Sprintf(format, args...)))
}

// section adds the fields of the struct typ to f; prefix leads from f's struct to an inlined one.
func (b *schemaBuilder) section(f *field, typ reflect.Type, prefix []int) {
	for _, outer := range b.open {
		if outer == typ {
			b.errorf(typ.String(), "contains itself")
			return
		}
	}
	b.open = append(b.open, typ)
	defer func() { b.open = b.open[:len(b.open)-1] }()

	for i := range typ.NumField() {
		sf := typ.Field(i)
		index := append(append([]int(nil), prefix...), i)
		where := typ.Name() + "." + sf.Name
		key, tagged := sf.Tag.Lookup("yaml")
		switch {
		case key == "-":
		case key == ",inline" && sf.Anonymous && sf.IsExported() && sf.Type.Kind() == reflect.Struct:
			b.section(f, sf.Type, index)
		case !sf.IsExported() && !tagged:
		case !sf.IsExported():
			b.errorf(where, "has a yaml tag but is not exported")
		case !keyPattern.MatchString(key):
			b.errorf(where, "yaml tag %q is not a key in snake_case", key)
		default:
			child := &field{key: key, path: joinPath(f.path, key), index: index, typ: sf.Type, parent: f, repeated: f.repeated}
			if b.setting(child, where, sf.Tag) {
				f.children = append(f.children, child)
			}
		}
	}
	if len(prefix) == 0 {
		b.checkKeys(f, typ)
	}
}

func (b *schemaBuilder) checkKeys(f *field, typ reflect.Type) {
	if len(f.children) == 0 {
		b.errorf(typ.String(), "has no settings")
	}
	seen := make(map[string]bool)
	for _, key := range f.keys() {
		if seen[key] {
			b.errorf(typ.String(), "key %q stands for two settings", key)
		}
		seen[key] = true
	}
}

// setting fills in a field from its type and tags. It returns false for a type that cannot be a setting.
func (b *schemaBuilder) setting(f *field, where string, tag reflect.StructTag) bool {
	f.tags = readTags(tag)
	if f.doc == "" {
		b.errorf(where, "needs a doc tag")
	}
	if err := b.shape(f); err != nil {
		b.errorf(where, "%v", err)
		return false
	}
	if err := f.check(); err != nil {
		b.errorf(where, "%v", err)
	}
	if f.env == "" {
		return true
	}
	names := []string{f.env}
	if f.isSecret() {
		names = append(names, f.fileEnv())
	}
	for _, name := range names {
		if other, taken := b.envs[name]; taken {
			b.errorf(where, "environment variable %s already stands for %s", name, other)
		}
		b.envs[name] = f.path
	}
	return true
}

// shape finds out what the type of f is and describes what is inside it.
func (b *schemaBuilder) shape(f *field) (err error) {
	typ := f.typ
	switch {
	case isScalar(typ):
		f.kind, f.scalar = scalarField, scalarOf(typ, f.tags)
	case typ.Kind() == reflect.Struct:
		f.kind = sectionField
		b.section(f, typ, nil)
	case typ.Kind() == reflect.Pointer && typ.Elem().Kind() == reflect.Struct && !isScalar(typ.Elem()):
		f.kind, f.optional, f.typ = sectionField, true, typ.Elem()
		b.section(f, f.typ, nil)
	case typ.Kind() == reflect.Pointer:
		return errors.New("a pointer may only point to a section")
	case typ.Kind() == reflect.Slice:
		f.kind = listField
		f.elem, err = b.element(f, typ.Elem(), f.path+"[]")
	case typ.Kind() == reflect.Map && typ.Key().Kind() == reflect.String:
		f.kind = mapField
		f.elem, err = b.element(f, typ.Elem(), f.path+".<name>")
	case typ.Kind() == reflect.Map:
		return errors.New("a map needs text keys")
	default:
		return fmt.Errorf("type %s cannot be a setting", typ)
	}
	return err
}

// element describes what a list or map holds: a scalar or a section, so that every path has one obvious spelling.
func (b *schemaBuilder) element(f *field, typ reflect.Type, path string) (*field, error) {
	elem := &field{path: path, typ: typ, parent: f, repeated: true}
	switch {
	case isScalar(typ):
		elem.kind = scalarField
		// oneof and type speak of the elements, min and max of the list.
		elem.scalar = scalarOf(typ, tags{oneof: f.oneof, typeText: f.typeText})
	case typ.Kind() == reflect.Struct:
		elem.kind = sectionField
		b.section(elem, typ, nil)
	default:
		return nil, fmt.Errorf("elements of type %s are neither scalars nor sections", typ)
	}
	return elem, nil
}

// isPlainStep reports whether a key stands in a path as it is: ASCII letters, digits, "_" and "-", at least one. It is
// asked for every setting of a configuration, several times.
func isPlainStep(key string) bool {
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return key != ""
}

// joinPath adds a key to a dotted path; a key with other characters is quoted: labels["rack.row"].
func joinPath(path, key string) string {
	switch {
	case !isPlainStep(key):
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	default:
		return path + "." + key
	}
}

// joinIndex adds the index of a list's element to a path.
func joinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// below joins a path relative to root, as Validate methods give it.
func below(root, relative string) string {
	if root == "" || relative == "" || strings.HasPrefix(relative, "[") {
		return root + relative
	}
	return root + "." + relative
}
