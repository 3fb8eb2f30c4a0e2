package fleet

import (
	"fmt"
	"reflect"
)

// Description is what a command is about, for a person who has to decide on a
// log. It holds nothing of the payload but the agent's id.
type Description struct {
	Kind  string // the name of the payload's type, such as SyncAgent
	Agent string // that it is about, "" if none
}

// Describe says what the command is about. What this version cannot read is
// described by its number.
func (c Command) Describe() Description {
	unknown := Description{Kind: fmt.Sprintf("type %d version %d", c.Type, c.Version)}
	h, known := handlers[c.Type]
	if !known || c.Version > h.version {
		return unknown
	}
	payload, err := h.read(c.Payload)
	if err != nil {
		return unknown
	}
	d := Description{Kind: h.name}
	fields := reflect.ValueOf(payload).Elem()
	for _, name := range []string{"AgentID", "Agent"} {
		if field := fields.FieldByName(name); field.IsValid() && field.Kind() == reflect.String {
			d.Agent = field.String()
			break
		}
	}
	return d
}
