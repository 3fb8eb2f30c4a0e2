package assignmentfile

import (
	"encoding/json"
	"fmt"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/settings"
)

// Write writes an assignment as a document that Read takes back, with its revision
// if that is wanted.
func Write(a *resource.Assignment, revision bool) ([]byte, error) {
	written := struct {
		Name        string          `json:"name"`
		Selector    string          `json:"selector"`
		Revision    *uint64         `json:"revision,omitempty"`
		Certificate json.RawMessage `json:"certificate"`
	}{Name: a.Name, Selector: a.Selector, Certificate: a.Certificate}
	if revision {
		written.Revision = &a.Revision
	}
	encoded, err := json.Marshal(written)
	if err != nil {
		return nil, fmt.Errorf("write the assignment %q: %w", a.Name, err)
	}
	text, err := settings.YAML(encoded)
	return append([]byte("---\n"), text...), err
}
