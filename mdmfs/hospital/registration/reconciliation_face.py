"""The paths on which a hospital's own people compare projects with PACSs, and follow merges of patients."""

from __future__ import annotations

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.projects import HOW_TO_WRITE, parse_patient
from mdmfs.hospital.registration.merge import merge_subjects
from mdmfs.hospital.registration.reconcile import Reconciliations
from mdmfs.model.errors import UnknownNameError
from mdmfs.wire.messages.administration import (
    MERGE_PATH,
    RECONCILE_PATH,
    RECONCILE_PROGRESS_PATH,
    AskReconciliation,
    MergeSubjects,
    StartReconciliation,
)
from mdmfs.wire.service import Reply, Request, Respond


def reconciliation_routes(hospital: Hospital, reconciliations: Reconciliations) -> dict[tuple[str, str], Respond]:
    """Give the routes; the hospital's own certificate is let in, and nobody else."""

    async def start(request: Request) -> Reply:
        asked = await request.read(StartReconciliation)
        return Reply(reconciliations.start(asked.project, is_deep=asked.is_deep))

    async def progress(request: Request) -> Reply:
        return Reply(reconciliations.progress((await request.read(AskReconciliation)).project))

    async def merge(request: Request) -> Reply:
        asked = await request.read(MergeSubjects)
        project = hospital.projects.get(asked.project)
        patient, into = parse_patient(asked.patient), parse_patient(asked.into)
        if project is None or patient is None or into is None or patient == into:
            message = f"there is no project {asked.project}, or the patients are not two of the form ID^^^ISSUER"
            raise UnknownNameError(message, what_to_do=f"list the projects with mdmfs doctor; {HOW_TO_WRITE}")
        return Reply(await merge_subjects(hospital, project, patient, into, is_dry=asked.is_dry))

    return {
        ("POST", RECONCILE_PATH): for_own_people(hospital, start),
        ("POST", RECONCILE_PROGRESS_PATH): for_own_people(hospital, progress),
        ("POST", MERGE_PATH): for_own_people(hospital, merge),
    }
