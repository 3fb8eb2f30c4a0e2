package managed

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// FileMode is a Unix permission, written in octal. Zero, written "keep", stands
// for the mode of the file that is replaced.
type FileMode fs.FileMode

const keepMode = "keep"

// UnmarshalText reads octal digits such as 640 or 0640, or keep.
func (m *FileMode) UnmarshalText(text []byte) error {
	if string(text) == keepMode {
		*m = 0
		return nil
	}
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return errors.New("want octal digits such as 0640, or keep")
	}
	*m = FileMode(n)
	return nil
}

// MarshalText writes four octal digits, or keep.
func (m FileMode) MarshalText() ([]byte, error) {
	if m == 0 {
		return []byte(keepMode), nil
	}
	return fmt.Appendf(nil, "%04o", uint32(m)), nil
}
