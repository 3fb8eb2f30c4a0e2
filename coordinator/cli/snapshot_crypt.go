package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certctl/certctl/coordinator/snapshotfile"
)

// minPassphrase is the shortest passphrase that a snapshot is encrypted with, in
// octets: the file may be carried anywhere.
const minPassphrase = 12

// scryptWork is the cost of a passphrase, as a power of two; tests lower it.
var scryptWork = 18

// encryption is what a snapshot is encrypted for. All of it happens here: neither
// passphrase nor identity reaches a coordinator.
type encryption struct {
	recipients     []string
	passphrase     bool
	passphraseFile string
}

func (e *encryption) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&e.recipients, "encrypt-to", nil, "encrypt for the holder of an age identity, by its recipient (age1...); may be repeated")
	flags.BoolVar(&e.passphrase, "passphrase", false, "encrypt with a passphrase, and ask for it")
	flags.StringVar(&e.passphraseFile, "passphrase-file", "", "encrypt with the passphrase in a file; - is standard input")
	cmd.MarkFlagsMutuallyExclusive("encrypt-to", "passphrase", "passphrase-file")
}

// to are age's recipients; none leaves the file as it is.
func (e *encryption) to(cmd *cobra.Command) ([]age.Recipient, error) {
	if e.passphrase || e.passphraseFile != "" {
		passphrase, err := readPassphrase(cmd, e.passphraseFile, true)
		if err != nil {
			return nil, err
		}
		if len(passphrase) < minPassphrase {
			return nil, fmt.Errorf("a passphrase of %d octets is too short; use %d or more", len(passphrase), minPassphrase)
		}
		recipient, err := age.NewScryptRecipient(passphrase)
		if err != nil {
			return nil, fmt.Errorf("passphrase: %w", err)
		}
		recipient.SetWorkFactor(scryptWork)
		return []age.Recipient{recipient}, nil
	}
	var list []age.Recipient
	for _, text := range e.recipients {
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("flag --encrypt-to %q: expected a recipient such as \"age-keygen\" prints, age1...: %w", text, err)
		}
		list = append(list, parsed...)
	}
	return list, nil
}

// decryption is what an encrypted snapshot is opened with.
type decryption struct {
	passphraseFile, identityFile string
}

func (d *decryption) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&d.passphraseFile, "passphrase-file", "", "file with the passphrase of an encrypted snapshot; - is standard input (default: ask)")
	flags.StringVar(&d.identityFile, "identity-file", "", "file with the age identity that the snapshot was encrypted for")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "identity-file")
}

// key reads what opens the file, once, if it is encrypted.
func (d *decryption) key(cmd *cobra.Command, path string) ([]age.Identity, error) {
	encrypted, err := isEncrypted(path)
	if err != nil || !encrypted {
		return nil, err
	}
	if d.identityFile != "" {
		text, err := readSmall(d.identityFile)
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		identities, err := age.ParseIdentities(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("identity %s: expected AGE-SECRET-KEY-1..., as \"age-keygen\" makes it", d.identityFile) // the cause may quote it
		}
		return identities, nil
	}
	if d.passphraseFile == "" && !asksFor(cmd) {
		return nil, fmt.Errorf("%s: %w", path, snapshotfile.ErrEncrypted)
	}
	passphrase, err := readPassphrase(cmd, d.passphraseFile, false)
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	identity.SetMaxWorkFactor(22)
	return []age.Identity{identity}, nil
}

func isEncrypted(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	_, err = snapshotfile.Open(file)
	return errors.Is(err, snapshotfile.ErrEncrypted), nil
}

// openSnapshot opens a file for reading, decrypted if identities are given.
func openSnapshot(path string, identities []age.Identity) (io.Reader, io.Closer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if len(identities) == 0 {
		return file, file, nil
	}
	buffered := bufio.NewReader(file)
	in := io.Reader(buffered)
	if begin, _ := buffered.Peek(len(armor.Header)); bytes.Equal(begin, []byte(armor.Header)) {
		in = armor.NewReader(buffered)
	}
	plain, err := age.Decrypt(in, identities...)
	if err != nil {
		_ = file.Close()
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return nil, nil, fmt.Errorf("%s: it was encrypted for somebody else, or with another passphrase", path)
		}
		return nil, nil, fmt.Errorf("%s: decrypt: %w", path, err)
	}
	return decrypted{plain}, file, nil
}

// decrypted tells what age finds as this project's reasons.
type decrypted struct{ r io.Reader }

// Read implements io.Reader.
func (d decrypted) Read(b []byte) (int, error) {
	n, err := d.r.Read(b)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, snapshotfile.ErrCutShort
	}
	return n, fmt.Errorf("%w: %w", snapshotfile.ErrDamaged, err)
}

// asksFor reports whether a person is there to type.
func asksFor(cmd *cobra.Command) bool {
	in, ok := cmd.InOrStdin().(*os.File)
	return ok && term.IsTerminal(int(in.Fd()))
}

// readPassphrase reads a file, or asks: twice, if it is a new one.
func readPassphrase(cmd *cobra.Command, path string, fresh bool) (string, error) {
	if path == "-" {
		text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxSmallFile))
		return strings.TrimRight(string(text), "\r\n"), err
	}
	if path != "" {
		text, err := readSmall(path)
		if err != nil {
			return "", fmt.Errorf("passphrase: %w", err)
		}
		if text == "" {
			return "", fmt.Errorf("passphrase: %s is empty", path)
		}
		return text, nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", errors.New("nobody is there to ask for the passphrase; give --passphrase-file")
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		text, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(text), err
	}
	first, err := ask("Passphrase: ")
	if err != nil || !fresh {
		return first, err
	}
	again, err := ask("Once more: ")
	if err == nil && again != first {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}
