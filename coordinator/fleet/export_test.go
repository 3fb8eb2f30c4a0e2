package fleet

import (
	"maps"
	"slices"
)

// RegisteredTypes lists the types of commands that have a handler.
func RegisteredTypes() []Type { return slices.Sorted(maps.Keys(handlers)) }

// Understood lists the versions of a type that have a handler, with the level
// that they need.
func Understood(typ Type) map[uint8]uint32 {
	list := map[uint8]uint32{}
	for version := uint8(1); version <= handlers[typ].version; version++ {
		list[version] = RequiredLevel(Command{Type: typ, Version: version})
	}
	return list
}
