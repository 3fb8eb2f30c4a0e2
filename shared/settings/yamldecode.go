package settings

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder walks a YAML document beside the description of the settings and sets what it finds.
type decoder struct{ *loader }

func (d *decoder) at(line, column int) Origin {
	return Origin{Source: SourceFile, File: d.File, Line: line, Column: column}
}

func (d *decoder) atNode(node ast.Node) Origin { return d.at(place(node)) }

// section sets the fields of the struct v from a mapping.
func (d *decoder) section(f *field, mapping *ast.MappingNode, v reflect.Value, path string) {
	seen := make(map[string]*ast.MappingValueNode)
	for _, pair := range mapping.Values {
		key, ok := d.key(pair, path, seen)
		if !ok {
			continue
		}
		child, isFile := f.child(key)
		switch {
		case child == nil:
			d.problem(joinPath(path, truncate(key, 64)), d.atNode(pair.Key), d.unknownKey(f, key))
		case isFile && seen[child.key] != nil, child.isSecret() && !isFile && seen[child.fileKey()] != nil:
			d.problem(joinPath(path, key), d.atNode(pair.Key), errBothForms)
		case isFile:
			d.secretFile(child, pair, v.FieldByIndex(child.index), joinPath(path, child.key))
		default:
			d.value(child, pair.Key, pair.Value, v.FieldByIndex(child.index), joinPath(path, key))
		}
	}
}

// key returns the text of a key, unless it is unusable or a duplicate.
func (d *decoder) key(pair *ast.MappingValueNode, path string, seen map[string]*ast.MappingValueNode) (string, bool) {
	switch pair.Key.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
	default:
		d.problem(path, d.atNode(pair.Key), fmt.Errorf("cannot use %s as a key; expected text", show(pair.Key)))
		return "", false
	}
	key := pair.Key.GetToken().Value
	if first := seen[key]; first != nil {
		line, _ := place(first.Key)
		d.problem(joinPath(path, truncate(key, 64)), d.atNode(pair.Key), fmt.Errorf("duplicate key, first given on line %d; expected each key once", line))
		return "", false
	}
	seen[key] = pair
	return key, true
}

// unknownKey suggests a key of the same section, or the same key where it exists in another section.
func (d *decoder) unknownKey(f *field, key string) error {
	text := "unknown key"
	if keys := f.keys(); len(keys) <= 12 {
		text += "; expected " + orList(keys)
	}
	if near := nearest(key, f.keys()); near != "" {
		return fmt.Errorf("%s; did you mean %q?", text, near)
	}
	elsewhere := ""
	d.schema.settings(func(other *field) {
		if other.key == key && elsewhere == "" && !other.repeated {
			elsewhere = other.path
		}
	})
	if elsewhere != "" {
		return fmt.Errorf("%s; did you mean %q?", text, elsewhere)
	}
	return errors.New(text)
}

// value sets one setting or section.
func (d *decoder) value(f *field, key, node ast.Node, v reflect.Value, path string) {
	if _, empty := node.(*ast.NullNode); empty {
		// An implicit null has no place of its own.
		if f.kind == scalarField {
			d.report.origins[path] = d.atNode(key)
			d.problem(path, d.atNode(key), fmt.Errorf("the value is empty; expected %s; or remove the line", f.expected()))
		}
		return
	}
	switch f.kind {
	case sectionField:
		d.report.origins[path] = d.atNode(key)
		mapping, ok := node.(*ast.MappingNode)
		if !ok {
			d.mismatch(f, node, path)
			return
		}
		if f.optional {
			v = d.enable(f, v)
		}
		d.section(f, mapping, v, path)
	case listField:
		d.report.origins[path] = d.atNode(key)
		d.list(f, node, v, path)
	case mapField:
		d.report.origins[path] = d.atNode(key)
		d.entries(f, node, v, path)
	default:
		d.scalar(f, node, v, path)
	}
}

func (d *decoder) list(f *field, node ast.Node, v reflect.Value, path string) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.mismatch(f, node, path)
		return
	}
	if err := f.checkLength(len(sequence.Values)); err != nil {
		d.problem(path, d.report.origins[path], err)
	}
	list := reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values))
	for i, element := range sequence.Values {
		d.element(f.elem, element, element, list.Index(i), joinIndex(path, i))
	}
	v.Set(list)
}

func (d *decoder) entries(f *field, node ast.Node, v reflect.Value, path string) {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		d.mismatch(f, node, path)
		return
	}
	if err := f.checkLength(len(mapping.Values)); err != nil {
		d.problem(path, d.report.origins[path], err)
	}
	entries := reflect.MakeMapWithSize(v.Type(), len(mapping.Values))
	seen := make(map[string]*ast.MappingValueNode)
	for _, pair := range mapping.Values {
		key, ok := d.key(pair, path, seen)
		if !ok {
			continue
		}
		if key == "" {
			d.problem(path, d.atNode(pair.Key), errors.New("the key is empty; expected a name"))
			continue
		}
		// Map elements cannot be set in place.
		element := reflect.New(f.elem.typ).Elem()
		d.element(f.elem, pair.Key, pair.Value, element, joinPath(path, key))
		entries.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), element)
	}
	v.Set(entries)
}

// element sets an element of a list or map. at is the node whose place a section has.
func (d *decoder) element(elem *field, at, node ast.Node, v reflect.Value, path string) {
	if elem.kind == scalarField {
		d.scalar(elem, node, v, path)
		return
	}
	d.applyDefaults(elem, v)
	d.report.origins[path] = d.atNode(at)
	switch node := node.(type) {
	case *ast.MappingNode:
		d.section(elem, node, v, path)
	case *ast.NullNode:
		// A name with nothing after it is an element with all defaults, a dash with nothing after it is a slip.
		if elem.parent.kind == listField {
			d.mismatch(elem, node, path)
		}
	default:
		d.mismatch(elem, node, path)
	}
}

// scalar sets a single value, if YAML's reading of it agrees with the setting's type.
func (d *decoder) scalar(f *field, node ast.Node, v reflect.Value, path string) {
	origin := d.atNode(node)
	d.report.origins[path] = origin
	text, style := scalarText(node)
	if style&f.scalar.accepts != 0 {
		if r := f.scalar.parse(text, v); r != nil {
			d.problem(path, origin, f.scalar.refuse(f.scalar.show(text), r))
		}
		return
	}
	switch {
	case f.scalar.secret && style != 0:
		d.problem(path, origin, errors.New("cannot use this value; expected "+f.expected()+"; write it in quotes"))
	case f.scalar.accepts&yamlText != 0 && style&(yamlInteger|yamlFloat|yamlBool) != 0:
		d.problem(path, origin, fmt.Errorf("cannot use %s; expected %s; write it in quotes: %q", show(node), f.expected(), text))
	default:
		d.mismatch(f, node, path)
	}
}

// secretFile sets a secret from the file that a <key>_file key names.
func (d *decoder) secretFile(f *field, pair *ast.MappingValueNode, v reflect.Value, path string) {
	origin := d.atNode(pair.Value)
	file, style := scalarText(pair.Value)
	if _, empty := pair.Value.(*ast.NullNode); empty {
		origin = d.atNode(pair.Key)
	}
	d.report.origins[path] = origin
	if style&yamlText == 0 || file == "" {
		d.problem(path+"_file", origin, fmt.Errorf("cannot use %s; expected the path of a file with the secret", show(pair.Value)))
		return
	}
	origin.SecretFile = d.besideFile(file)
	d.report.origins[path] = origin
	if d.superseded(f, SourceFile) {
		return
	}
	if err := f.readSecret(origin.SecretFile, v); err != nil {
		d.problem(path+"_file", origin, err)
	}
}

// mismatch reports a node of the wrong shape.
func (d *decoder) mismatch(f *field, node ast.Node, path string) {
	shown := show(node)
	if f.kind == scalarField && f.scalar.secret || f.elem != nil && f.elem.kind == scalarField && f.elem.scalar.secret {
		shown = "this value"
	}
	d.problem(path, d.atNode(node), fmt.Errorf("cannot use %s; expected %s", shown, f.expected()))
}

// scalarText returns the text of a scalar and the ways in which YAML reads it; no style for anything else.
func scalarText(node ast.Node) (string, yamlStyle) {
	switch node := node.(type) {
	case *ast.StringNode:
		if node.Token.Type == token.StringType {
			return node.Value, yamlText | yamlPlain
		}
		return node.Value, yamlText
	case *ast.LiteralNode:
		return node.Value.Value, yamlText
	case *ast.IntegerNode:
		return node.Token.Value, yamlInteger
	case *ast.FloatNode:
		return node.Token.Value, yamlFloat
	case *ast.BoolNode:
		return node.Token.Value, yamlBool
	default:
		return "", 0
	}
}

// show describes a node in a message.
func show(node ast.Node) string {
	switch node := node.(type) {
	case *ast.MappingNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "an empty value"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + truncate(node.GetToken().Value, 64)
	case *ast.BoolNode:
		return "the truth value " + node.Token.Value
	case *ast.StringNode, *ast.LiteralNode:
		text, _ := scalarText(node)
		return strconv.Quote(truncate(text, 64))
	default:
		return "this value"
	}
}

// place returns the line and column of a node: of a block mapping those of its first key, of a block text those of its
// indicator.
func place(node ast.Node) (line, column int) {
	if mapping, ok := node.(*ast.MappingNode); ok && !mapping.IsFlowStyle && len(mapping.Values) > 0 {
		return place(mapping.Values[0].Key)
	}
	position := node.GetToken().Position
	return position.Line, max(position.Column, 1)
}
