package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// YAML writes a JSON document as YAML that Load reads as the same: mappings in block form with their keys in the order
// of the document, lists of scalars on one line. Nesting deeper than Load takes is an error.
func YAML(document json.RawMessage) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	root, err := decodeNode(d, 0)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the document")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write JSON as YAML: %w", err)
	}
	var w yamlWriter
	switch {
	case root.inline():
		w.line(0, root.flow())
	default:
		w.node(root, 0)
	}
	return w.out.Bytes(), nil
}

// node is one value of a JSON document.
type node struct {
	scalar string   // as YAML; "" for a mapping or list
	keys   []string // of a mapping
	below  []node
	list   bool
}

func decodeNode(d *json.Decoder, depth int) (node, error) {
	token, err := d.Token()
	if err != nil {
		return node{}, err
	}
	if depth > maxDepth {
		return node{}, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	switch value := token.(type) {
	case json.Delim: // the decoder lets no closing one stand here
		n := node{list: value == '['}
		for d.More() {
			if !n.list {
				key, err := d.Token()
				if err != nil {
					return node{}, err
				}
				n.keys = append(n.keys, key.(string)) // JSON has no other keys
			}
			below, err := decodeNode(d, depth+1)
			if err != nil {
				return node{}, err
			}
			n.below = append(n.below, below)
		}
		_, err := d.Token()
		return n, err
	case string:
		return node{scalar: quoteYAML(value)}, nil
	case nil:
		return node{scalar: "null"}, nil
	default: // numbers and truth values are the same in both
		return node{scalar: fmt.Sprint(value)}, nil
	}
}

// inline reports whether the node stands on the line of its key.
func (n *node) inline() bool {
	if n.scalar != "" || len(n.below) == 0 {
		return true
	}
	for i := range n.below {
		if !n.list || n.below[i].scalar == "" {
			return false
		}
	}
	return true
}

// flow is an inline node.
func (n *node) flow() string {
	switch {
	case n.scalar != "":
		return n.scalar
	case !n.list:
		return "{}"
	}
	parts := make([]string, len(n.below))
	for i := range n.below {
		parts[i] = n.below[i].scalar
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// node writes a mapping or list in block form. The first key of a mapping in a list stands behind its dash.
func (w *yamlWriter) node(n node, depth int) {
	for i := range n.below {
		below := n.below[i]
		switch {
		case n.list && below.inline():
			w.line(depth, "- "+below.flow())
		case n.list:
			var element yamlWriter
			element.node(below, depth+1)
			indent := strings.Repeat("  ", depth)
			w.out.WriteString(indent + "- " + strings.TrimPrefix(element.out.String(), indent+"  "))
		case below.inline():
			w.line(depth, quoteYAML(n.keys[i])+": "+below.flow())
		default:
			w.line(depth, quoteYAML(n.keys[i])+":")
			w.node(below, depth+1)
		}
	}
}
