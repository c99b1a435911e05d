"""The paths on which a hospital's own people compare projects with PACSs, follow merges, and forget."""

from __future__ import annotations

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.projects import HOW_TO_WRITE, parse_patient
from mdmfs.hospital.registration.forget import forget_subjects
from mdmfs.hospital.registration.merge import merge_subjects
from mdmfs.hospital.registration.reconcile import Reconciliations
from mdmfs.model.errors import MalformedMessageError, MalformedNameError, UnknownNameError
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.administration import (
    FORGET_PATH,
    MERGE_PATH,
    RECONCILE_PATH,
    RECONCILE_PROGRESS_PATH,
    AskReconciliation,
    ForgetSubjects,
    Forgotten,
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

    async def forget(request: Request) -> Reply:
        return Reply(await _forget(hospital, await request.read(ForgetSubjects)))

    return {
        ("POST", FORGET_PATH): for_own_people(hospital, forget),
        ("POST", RECONCILE_PATH): for_own_people(hospital, start),
        ("POST", RECONCILE_PROGRESS_PATH): for_own_people(hospital, progress),
        ("POST", MERGE_PATH): for_own_people(hospital, merge),
    }


async def _forget(hospital: Hospital, asked: ForgetSubjects) -> Forgotten:
    if bool(asked.subjects) == bool(asked.project):
        message = "it is subjects, or those of a project, that are forgotten: name one of these"
        raise MalformedMessageError(message)
    try:
        subjects = [SubjectId.parse(text) for text in dict.fromkeys(asked.subjects)]
        after = SubjectId.parse(asked.after) if asked.after else None
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    return await forget_subjects(hospital, subjects, asked.project, after, is_dry=asked.is_dry)
