package issuers

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/certctl/certctl/shared/jitter"
)

// watchInterval is how often credentials are looked at.
const watchInterval = 10 * time.Second

// credentials stand for an account's credentials as they are now, for comparison. An
// error says that some of them cannot be read, as while somebody replaces them.
func (i *Issuer) credentials() ([sha256.Size]byte, error) {
	sum := sha256.New()
	add := func(text []byte) {
		_ = binary.Write(sum, binary.BigEndian, uint64(len(text))) // a hash takes all
		sum.Write(text)
	}
	for _, secret := range i.secrets {
		text, err := secret.Read()
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		add([]byte(text))
	}
	if i.client != nil {
		text, err := readFile(i.client.file)
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		add(text)
	}
	return [sha256.Size]byte(sum.Sum(nil)), nil
}

// Run has an account be asked again when its credentials have changed: one whose
// credentials were refused rests, and has no reason to any more.
func (s *Service) Run(ctx context.Context) error {
	if len(s.config.Registry.issuers) == 0 {
		<-ctx.Done()
		return nil
	}
	known := map[string][sha256.Size]byte{}
	look := func(context.Context) { s.follow(known) }
	look(ctx)
	jitter.Loop(ctx, watchInterval, jitter.DefaultSchedulerJitter, nil, look)
	return nil
}

func (s *Service) follow(known map[string][sha256.Size]byte) {
	for _, i := range s.config.Registry.All() {
		now, err := i.credentials()
		if err != nil {
			continue // the next request says what is wrong
		}
		before, seen := known[i.Name]
		known[i.Name] = now
		if !seen || now == before {
			continue
		}
		if !s.config.Leads() || s.config.Engine.Resume(i.Name) != nil {
			continue // who leads next begins with these
		}
		s.config.Log.Info("the credentials of an issuer have changed, and its authority is asked again", "issuer", i.Name)
	}
}
