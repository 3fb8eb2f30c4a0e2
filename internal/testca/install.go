package testca

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Install runs the setup script of that name (scripts/setup/NAME.sh), which
// does nothing when its programs are there already, and returns the directory
// that holds them. The repository is found from the working directory upwards.
func Install(ctx context.Context, name string) (binDir string, err error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	script := filepath.Join(root, "scripts", "setup", name+".sh")
	out, err := exec.CommandContext(ctx, "bash", script).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return filepath.Join(root, ".tools", "bin"), nil
}

func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "scripts", "setup")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find the repository: no directory above the working directory holds scripts/setup; run this inside a checkout")
		}
		dir = parent
	}
}
