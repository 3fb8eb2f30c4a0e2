package main

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
)

// rearmed finds timers that are started again and again, which makes tickers of
// them: time.After, time.NewTimer and the Reset of a timer inside a for loop, and
// an AfterFunc whose function leads to it again. A timer that is made once before
// a loop and bounds it is none.
//
// It goes by names, not by types: within one file, what is assigned from
// time.NewTimer or time.AfterFunc, or declared as a *time.Timer, is a timer.
type rearmed struct {
	aliases map[string]bool // of the package time
	report  func(at token.Pos, text string)

	timers map[string]bool
	// bodies are the functions of the file, and those that a variable holds.
	bodies map[string][]ast.Node
}

func (r *rearmed) check(file *ast.File) {
	r.timers, r.bodies = make(map[string]bool), make(map[string][]ast.Node)
	ast.Inspect(file, r.declare)
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.ForStmt:
			r.repeated(node.Cond, node.Post, node.Body)
		case *ast.RangeStmt:
			r.repeated(node.Body)
		}
		return true
	})
	for _, name := range slices.Sorted(maps.Keys(r.bodies)) {
		for _, body := range r.bodies[name] {
			r.rearms(name, body)
		}
	}
}

// declare learns of timers and functions.
func (r *rearmed) declare(node ast.Node) bool {
	bind := func(left, right ast.Expr) {
		if literal, ok := right.(*ast.FuncLit); ok {
			r.bodies[nameOf(left)] = append(r.bodies[nameOf(left)], literal.Body)
		}
		if call, ok := right.(*ast.CallExpr); ok && (r.isTime(call.Fun, "NewTimer") || r.isTime(call.Fun, "AfterFunc")) {
			r.timers[nameOf(left)] = true
		}
	}
	switch node := node.(type) {
	case *ast.FuncDecl:
		if node.Body != nil {
			r.bodies[node.Name.Name] = append(r.bodies[node.Name.Name], node.Body)
		}
	case *ast.AssignStmt:
		for i := range node.Rhs {
			if len(node.Lhs) == len(node.Rhs) {
				bind(node.Lhs[i], node.Rhs[i])
			}
		}
	case *ast.ValueSpec:
		for i := range node.Values {
			if len(node.Names) == len(node.Values) {
				bind(node.Names[i], node.Values[i])
			}
		}
		r.declared(node.Type, node.Names)
	case *ast.Field:
		r.declared(node.Type, node.Names)
	}
	return true
}

func (r *rearmed) declared(typ ast.Expr, names []*ast.Ident) {
	if pointer, ok := typ.(*ast.StarExpr); ok && r.isTime(pointer.X, "Timer") {
		for _, name := range names {
			r.timers[name.Name] = true
		}
	}
}

// repeated reports what makes or restarts a timer in the parts of a loop. Loops
// inside it are looked at by themselves.
func (r *rearmed) repeated(parts ...ast.Node) {
	for _, part := range parts {
		if isNil(part) {
			continue
		}
		ast.Inspect(part, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.ForStmt, *ast.RangeStmt:
				return false
			case *ast.SelectorExpr:
				for _, name := range []string{"After", "NewTimer"} {
					if r.isTime(node, name) {
						r.report(node.Pos(), "time."+name+" in a loop is a ticker without jitter")
					}
				}
			case *ast.CallExpr:
				if r.resets(node) {
					r.report(node.Pos(), "Reset of a timer in a loop is a ticker without jitter")
				}
			}
			return true
		})
	}
}

// rearms reports each AfterFunc in the body of a function whose own function
// comes back to that one, or restarts the timer itself.
func (r *rearmed) rearms(name string, body ast.Node) {
	ast.Inspect(body, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok || !r.isTime(call.Fun, "AfterFunc") || len(call.Args) != 2 {
			return true
		}
		if r.leads(call.Args[1], name, make(map[string]bool)) {
			r.report(call.Pos(), "time.AfterFunc that starts itself again is a ticker without jitter")
		}
		return true
	})
}

// leads reports whether what a node refers to comes to the function of that name,
// or to the Reset of a timer.
func (r *rearmed) leads(from ast.Node, name string, seen map[string]bool) (found bool) {
	ast.Inspect(from, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok && r.resets(call) {
			found = true
		}
		used, ok := node.(*ast.Ident)
		if found || !ok || seen[used.Name] || r.bodies[used.Name] == nil {
			return !found
		}
		seen[used.Name] = true
		found = used.Name == name
		for _, body := range r.bodies[used.Name] {
			found = found || r.leads(body, name, seen)
		}
		return !found
	})
	return found
}

// resets reports whether a call is the Reset of a timer.
func (r *rearmed) resets(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	return ok && method.Sel.Name == "Reset" && len(call.Args) == 1 && r.timers[nameOf(method.X)]
}

// isTime reports whether an expression is that name of the package time.
func (r *rearmed) isTime(expr ast.Expr, name string) bool {
	selector, ok := expr.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	qualifier, ok := selector.X.(*ast.Ident)
	return ok && r.aliases[qualifier.Name]
}

// nameOf is the last name of an expression: timer of both timer and t.timer.
func nameOf(expr ast.Expr) string {
	switch expr := expr.(type) {
	case *ast.Ident:
		return expr.Name
	case *ast.SelectorExpr:
		return expr.Sel.Name
	}
	return ""
}

// isNil reports whether a part of a loop is left out.
func isNil(part ast.Node) bool {
	switch part := part.(type) {
	case nil:
		return true
	case *ast.BlockStmt:
		return part == nil
	}
	return false
}
